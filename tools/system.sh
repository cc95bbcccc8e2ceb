#!/usr/bin/env bash
# Check what the machine must have, and install what Debian's packages can give: system.sh PYTHON [chromium] [chromium-headless-shell] [chinese]
set -euo pipefail

python=$1
shift

install_packages() { # install_packages WHY PACKAGE...
  local why=$1
  shift
  local as=()
  if [ "$(id -u)" != 0 ]; then
    if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
      as=(sudo -n)
    else
      echo "$why: as root, run 'apt-get install $*' and start again" >&2
      exit 1
    fi
  fi
  command -v apt-get >/dev/null || {
    echo "$why: install it with this system's package manager ($* on Debian) and start again" >&2
    exit 1
  }
  echo "installing $* ($why)"
  DEBIAN_FRONTEND=noninteractive
  export DEBIAN_FRONTEND
  "${as[@]}" apt-get update -qq
  "${as[@]}" apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

command -v "$python" >/dev/null || {
  echo "$python is missing: install Python 3.11 with venv, or name another with 'make PYTHON=...'" >&2
  exit 1
}
"$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || {
  echo "medfuse needs Python 3.11 to 3.13; $python is $("$python" --version)" >&2
  exit 1
}
"$python" -c 'import ensurepip, venv' 2>/dev/null || install_packages "Python's venv is missing" python3-venv

for wanted in "$@"; do
  case $wanted in
    chromium | chromium-headless-shell)
      command -v "$wanted" >/dev/null || install_packages "the page's tests need a browser" "$wanted"
      ;;
    chinese)
      [ -n "$(fc-list :lang=zh 2>/dev/null)" ] || install_packages "pictures need a Chinese font" fonts-noto-cjk
      ;;
    *)
      echo "system.sh knows nothing of '$wanted'" >&2
      exit 1
      ;;
  esac
done
