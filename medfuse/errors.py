"""Every error medfuse raises on purpose, under one root."""


class MedfuseError(Exception):
    """The root of all expected errors; its message is safe to show and to log."""


class InputError(MedfuseError):
    """What was sent cannot be used; the sender can fix it."""


class DicomError(InputError):
    """A DICOM object, or a picture in its place, cannot be used."""


class BurnedInError(DicomError):
    """A DICOM image may have text in its pixels, which de-identification cannot remove."""


class NoteError(InputError):
    """A clinical note cannot be used."""


class VoiceError(InputError):
    """A voice recording cannot be used."""


class LimitError(InputError):
    """An input declares more than a limit in `Limits` allows; it was refused before decoding."""


class CohortError(MedfuseError):
    """A cohort table or its split cannot be used."""


class SourceError(MedfuseError):
    """A folder to import from is not laid out as its source publishes it."""


class SettingsError(MedfuseError):
    """A settings file has an unknown key or a bad value."""


class OutputError(MedfuseError):
    """What a command makes cannot be written where it was told to."""


class TrainingError(MedfuseError):
    """Training or its checkpoint cannot go on as asked."""


class ExportError(MedfuseError):
    """A model cannot be exported, or its export does not agree with it."""


class BundleError(MedfuseError):
    """A bundle is damaged, altered or of another version; the deployment is wrong."""


class StoreError(MedfuseError):
    """A worklist's database cannot be used or holds something else; the deployment is wrong."""


class ReportError(InputError):
    """A report cannot be read, or is not as it was made."""
