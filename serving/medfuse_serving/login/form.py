"""The reader's language in, the log-in page out; it needs no script."""

from html import escape

from medfuse.bundle import NOTICE
from medfuse_serving.language import ENGLISH, LANGUAGES, OWN_NAMES, Language, find_language
from medfuse_serving.login.accounts import MOST_CHARACTERS

NAME_CHARACTERS = 64
"""Of an account's name, at most."""


def choose_language(asked: str | None, kept: str | None, accepted: str) -> Language:
    """Choose the page's language.

    Args:
        asked: Its code, by a link of the page.
        kept: Its code, by what was chosen before.
        accepted: The browser's ``Accept-Language`` (RFC 9110, 12.5.4), the wanted one first.
    """
    for chosen in (asked, kept):
        if chosen in LANGUAGES:
            return find_language(str(chosen))
    first = accepted.partition(",")[0].partition(";")[0].strip().lower()
    code = first.partition("-")[0]
    return find_language(code) if code in LANGUAGES else ENGLISH


def say_refused(language: Language, wait_s: float) -> str:
    """Say why a try failed, and how long the next must wait."""
    if wait_s > 0:
        return language.text(
            "Too many wrong passwords. Try again in {minutes} minutes.",
            minutes=max(1, round(wait_s / 60)),
        )
    return language.text("The name or the password is wrong.")


def say_ended(language: Language) -> str:
    """Say why a page that was open is not there any more."""
    return language.text(
        "You are no longer logged in, so the page was closed and nothing of the study is left on "
        "it. Log in again to go on."
    )


def login_html(language: Language, problem: str = "", name: str = "") -> str:
    """Write the page.

    Args:
        language: The reader's.
        problem: What there is to say, in that language.
        name: That was typed before; the password is then typed first.
    """
    if problem:
        problem = f'<p class="problem" role="alert">{escape(problem)}</p>'
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
        f'maxlength="{NAME_CHARACTERS}" value="{escape(name)}"{"" if name else " autofocus"}>'
        f'<label for="password">{escape(language.text("Password"))}</label>'
        '<input id="password" name="password" type="password" autocomplete="current-password" '
        f'required maxlength="{MOST_CHARACTERS}"{" autofocus" if name else ""}>'
        f"<button>{heading}</button></form><p>{others}</p></main></body></html>"
    )
