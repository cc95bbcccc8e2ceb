"""The headings of clinical notes, each with the section it opens."""

from collections.abc import Mapping

PREAMBLE = "PREAMBLE"
"""The section of what stands before the first heading."""

SECTION_HEADINGS: Mapping[str, tuple[str, ...]] = {
    "EXAMINATION": (
        "EXAMINATION",
        "EXAM",
        "STUDY",
        "PROCEDURE",
        "FINAL REPORT",
        "UNTERSUCHUNG",
        "EXAMEN",
    ),
    "INDICATION": (
        "INDICATION",
        "INDICATIONS",
        "CLINICAL INDICATION",
        "CLINICAL INFORMATION",
        "CLINICAL HISTORY",
        "CLINICAL DETAILS",
        "CLINICAL QUESTION",
        "REASON FOR EXAM",
        "REASON FOR EXAMINATION",
        "REASON FOR STUDY",
        "REASON FOR THIS EXAMINATION",
        "CHIEF COMPLAINT",
        "FRAGESTELLUNG",
        "KLINISCHE ANGABEN",
        "INDIKATION",
    ),
    "HISTORY": (
        "HISTORY",
        "HISTORY OF PRESENT ILLNESS",
        "HPI",
        "PAST MEDICAL HISTORY",
        "MEDICAL HISTORY",
        "FAMILY HISTORY",
        "SOCIAL HISTORY",
        "ANAMNESE",
        "ANTECEDENTES",
        "ANTÉCÉDENTS",
    ),
    "TECHNIQUE": ("TECHNIQUE", "TECHNIK", "TÉCNICA"),
    "COMPARISON": ("COMPARISON", "COMPARISONS", "COMPARISON STUDY", "PRIOR STUDIES"),
    "MEDICATIONS": ("MEDICATIONS", "MEDICATION", "CURRENT MEDICATIONS"),
    "ALLERGIES": ("ALLERGIES",),
    "VITAL SIGNS": ("VITAL SIGNS", "VITALS"),
    "PHYSICAL EXAM": ("PHYSICAL EXAM", "PHYSICAL EXAMINATION"),
    "LABORATORY": ("LABORATORY", "LABORATORY RESULTS", "LABORATORY DATA", "LABS"),
    "HOSPITAL COURSE": ("HOSPITAL COURSE", "BRIEF HOSPITAL COURSE", "COURSE"),
    "FINDINGS": (
        "FINDINGS",
        "FINDING",
        "REPORT",
        "BEFUND",
        "BEFUNDE",
        "HALLAZGOS",
        "RÉSULTATS",
    ),
    "IMPRESSION": (
        "IMPRESSION",
        "IMPRESSIONS",
        "FINAL IMPRESSION",
        "CLINICAL IMPRESSION",
        "PRELIMINARY IMPRESSION",
        "CONCLUSION",
        "CONCLUSIONS",
        "SUMMARY",
        "OPINION",
        "INTERPRETATION",
        "PRELIMINARY REPORT",
        "PRELIMINARY READ",
        "WET READ",
        "ASSESSMENT",
        "DIAGNOSIS",
        "DIAGNOSES",
        "FINAL DIAGNOSIS",
        "PRIMARY DIAGNOSIS",
        "DISCHARGE DIAGNOSIS",
        "DISCHARGE DIAGNOSES",
        "BEURTEILUNG",
        "DIAGNOSE",
        "DIAGNOSEN",
        "CONCLUSIÓN",
        "IMPRESIÓN",
        "IMPRESIÓN DIAGNÓSTICA",
    ),
    "RECOMMENDATION": ("RECOMMENDATION", "RECOMMENDATIONS", "PLAN", "EMPFEHLUNG"),
    "NOTIFICATION": ("NOTIFICATION", "NOTIFICATIONS", "COMMUNICATION"),
    "ADDENDUM": ("ADDENDUM", "ADDENDA"),
}
"""Each section with every heading that opens it; names and headings are in capitals."""


def section_of(heading: str, more: Mapping[str, str]) -> str | None:
    """Name the section a heading opens, whatever its case and spacing; None for an unknown one.

    Args:
        heading: A heading without its colon, or a section's name.
        more: A site's own headings and their sections, which go before the table.
    """
    wanted = _plain(heading)
    own = {_plain(key): _plain(value) for key, value in more.items()}
    if wanted in own:
        return own[wanted]
    if wanted == PREAMBLE or wanted in own.values():
        return wanted
    return _SECTIONS.get(wanted)


def _plain(heading: str) -> str:
    return " ".join(heading.upper().split())


_SECTIONS = {
    heading: section for section, headings in SECTION_HEADINGS.items() for heading in headings
}
