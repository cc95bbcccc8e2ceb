"""The reader's language in, the log-in page out; it needs no script."""

from html import escape

from medfuse.bundle import NOTICE
from medfuse_serving.language import ENGLISH, LANGUAGES, OWN_NAMES, Language, find_language


def choose_language(asked: str | None, accepted: str) -> Language:
    """Choose the page's language.

    Args:
        asked: Its code, by a link of the page.
        accepted: The browser's ``Accept-Language`` (RFC 9110, 12.5.4), the wanted one first.
    """
    if asked in LANGUAGES:
        return find_language(str(asked))
    first = accepted.partition(",")[0].partition(";")[0].strip().lower()
    code = first.partition("-")[0]
    return find_language(code) if code in LANGUAGES else ENGLISH


def login_html(language: Language, wait_s: float | None = None) -> str:
    """Write the page.

    Args:
        language: The reader's.
        wait_s: None before a try; after a failed one how long the next must wait.
    """
    problem = ""
    if wait_s is not None and wait_s > 0:
        said = language.text(
            "Too many wrong passwords. Try again in {minutes} minutes.",
            minutes=max(1, round(wait_s / 60)),
        )
        problem = f'<p class="problem" role="alert">{escape(said)}</p>'
    elif wait_s is not None:
        said = language.text("The name or the password is wrong.")
        problem = f'<p class="problem" role="alert">{escape(said)}</p>'
    heading = escape(language.text("Log in"))
    others = " \N{MIDDLE DOT} ".join(
        f'<a href="login?language={code}" lang="{LANGUAGES[code]}">{escape(OWN_NAMES[code])}</a>'
        for code in LANGUAGES
        if code != language.code
    )
    return (
        f'<!doctype html><html lang="{language.tag}"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width"><title>medfuse: {heading}</title>'
        '<link rel="stylesheet" href="web/login.css"><link rel="icon" href="data:,"></head><body>'
        f'<main><h1>medfuse</h1><p class="notice" role="note">{escape(language.text(NOTICE))}</p>'
        f'<form method="post" action="login?language={language.code}"><h2>{heading}</h2>{problem}'
        f'<label for="name">{escape(language.text("Name"))}</label>'
        '<input id="name" name="name" autocomplete="username" autocapitalize="none" required '
        'maxlength="64" autofocus>'
        f'<label for="password">{escape(language.text("Password"))}</label>'
        '<input id="password" name="password" type="password" autocomplete="current-password" '
        'required maxlength="256">'
        f"<button>{heading}</button></form><p>{others}</p></main></body></html>"
    )
