"""The forms of English sentences that other parts make with figures in them, to translate them by.

A study's remarks and an explanation's checks are whole English sentences in every JSON form. Each
form here is one of theirs, word for word, with a name in braces where a figure stands.
"""

from medfuse_serving.language import message

REMARKS = (
    message("A file has no usable window, so its values' own range was used."),
    message("A file has fewer windows than the setting asks for; its first was used."),
    message("A file says that text is burned into its pixels."),
    message("Parts of every frame are black to the model, by its settings."),
    message("{read} of {total} frames were read, evenly spread."),
    message("The note is not Unicode; it was read as {encoding}."),
    message("Sections of the note were left out: {names}."),
    message("{count} word(s) or phrase(s) of the note were masked, by the model's settings."),
    message("Nothing of the note is left after {what}."),
    message(
        "The note's last {lost} of {pieces} word pieces ({characters} of {all} characters) did "
        "not fit."
    ),
    message("The model knows too few of the note's words: {unknown} are unknown to it."),
    message("The recording lasts {duration} s; the first {used} s were used."),
    message("The recording is silent: never louder than {level} dBFS."),
    message("The recording is clipped: {share} of its samples."),
    message("The recording's file breaks off before the end that its header declares."),
    message(
        "The recording was made at {rate} Hz; it holds nothing above {half} Hz, and up to {high} "
        "Hz is read."
    ),
)
"""What `Remark` says."""

CHECKS = (
    message("{method} promises no completeness, so there is none to check."),
    message("The map accounts for the output but for {gap} (at most {most} is good)."),
    message(
        "Under noise that moves the probability by {moved} at most, the {modality} keeps {value} "
        "of its map (1 is all; at least {least} is good)."
    ),
    message(
        "The output moves by {span} at most, whatever is taken away, so there is nothing to "
        "explain (less than {least}). Along the map's order of regions, putting them back differs "
        "from taking them away by {area}, which beats {beaten} of {orders} random orders (at least "
        "{share} is good)."
    ),
    message(
        "Along the map's order of regions, putting them back differs from taking them away by "
        "{area}, which beats {beaten} of {orders} random orders (at least {share} is good)."
    ),
    message(
        "By patches, words and sounds the map ranks as {method} does with a correlation of "
        "{value} (at least {least} is good)."
    ),
)
"""What `Check` says."""

SENTENCES = REMARKS + CHECKS

CHECK_NAMES = (
    message("completeness"),
    message("stability"),
    message("faithfulness"),
    message("agreement"),
)

NAMES = (
    # of a note's sections
    message("preamble"),
    message("examination"),
    message("indication"),
    message("history"),
    message("technique"),
    message("comparison"),
    message("medications"),
    message("allergies"),
    message("vital signs"),
    message("physical exam"),
    message("laboratory"),
    message("hospital course"),
    message("impression"),
    message("recommendation"),
    message("notification"),
    message("addendum"),
    # of the known-truth cohort
    message("nodule"),
    message("embolism"),
    message("airway obstruction"),
    message("pneumonia"),
    message("heart failure"),
    message("discordance"),
    message("low mood"),
    # of public sets of chest films and of recordings
    message("no finding"),
    message("enlarged cardiomediastinum"),
    message("cardiomegaly"),
    message("lung lesion"),
    message("lung opacity"),
    message("edema"),
    message("consolidation"),
    message("atelectasis"),
    message("pneumothorax"),
    message("pleural effusion"),
    message("effusion"),
    message("pleural other"),
    message("pleural thickening"),
    message("fracture"),
    message("support devices"),
    message("infiltration"),
    message("mass"),
    message("emphysema"),
    message("fibrosis"),
    message("hernia"),
    message("covid"),
    message("covid19"),
    message("tuberculosis"),
    message("pulmonary embolism"),
    message("copd"),
    message("asthma"),
    message("normal"),
    message("abnormal"),
    # words for classes and levels, and names of tasks
    message("findings"),
    message("affect"),
    message("severity"),
    message("diagnosis"),
    message("mood"),
    message("none"),
    message("mild"),
    message("moderate"),
    message("severe"),
    message("absent"),
    message("present"),
    message("image"),
    message("note"),
    message("voice"),
)
"""Names that models give to tasks, findings and classes, and that a reader's language has words
for; any other stays as the model calls it."""
