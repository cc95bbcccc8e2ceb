"""The forms of the English sentences that say why something is refused, to translate them by.

Errors are whole English sentences, as in every JSON form and on the command line; each form here is
one of those that can come to the page.
"""

from medfuse_serving.language import message

FILES = (
    message(
        "the study has {count} file(s) that are neither image, note nor recording (ending in "
        "{endings}); remove them from its folder"
    ),
    message("the study has {count} {parts}; expected at most one"),
    message("notes"),
    message("recordings"),
    message("the study has {count} image files; at most {most} are read"),
    message("the study has {count} images; at most {most} are read"),
    message("a file of the study cannot be read ({fault})"),
    message("a file of the study has more than {most} bytes"),
    message("the study has no image, no note and no voice to read"),
    message("the study has no image, no note and no voice to read; {reason}"),
    message("the study has no image, no note and no voice; expected at least one"),
    message("{keyword} differs among the parts of the study; send one patient's study at a time"),
    message(
        "the images have {size} bytes together, and at most {most} are taken; clear them and give "
        "fewer, or use the command line"
    ),
)
"""What is said of files, and of a study's parts together."""

IMAGES = (
    message("the file is not a DICOM file"),
    message("the file is not a DICOM file, or it is damaged ({fault})"),
    message("the file is {kind}, not an image"),
    message("a segmentation"),
    message("a label map segmentation"),
    message("a radiotherapy dose"),
    message("the file has no pixel data"),
    message(
        "a PNG or JPEG came where DICOM is expected; give the DICOM file that it was made from, or "
        "use a model that was trained with image.pictures"
    ),
    message("a picture is damaged ({fault})"),
    message("a picture has {rows} x {columns} pixels; at most {most} are accepted"),
    message("a picture has more than {most} pixels"),
    message("a picture has no stored DICOM values"),
    message("a study has {count} files; at most {most} are accepted"),
    message("a study declares more than {most} frames"),
    message("a study's chosen frames would be {size} bytes; at most {most} are accepted"),
    message("a file's frames would be {size} bytes; at most {most} are accepted"),
    message("a file has {size} bytes; at most {most} are accepted"),
    message("a frame declares {rows} x {columns} x {samples} values; at most {most} are accepted"),
    message("a file declares {frames} frames; expected 1 to {most}"),
    message("the transfer syntax is not supported"),
    message("transfer syntax {name} is not supported"),
    message("PhotometricInterpretation is not supported; expected one of {names}"),
    message("a DICOM frame in {name} cannot be decoded ({fault})"),
    message("a DICOM file's pixel data cannot be read ({fault})"),
    message("a DICOM file's identifiers cannot be read ({fault})"),
    message("a DICOM file's acquisition cannot be read ({fault})"),
    message("a DICOM file's image description is damaged ({fault})"),
    message("a DICOM file's place in its series cannot be read ({fault})"),
    message("a DICOM frame's grey values cannot be worked out ({fault})"),
)
"""What is said of an image's file, which its sender may mend."""

HEADERS = (
    message("a deflated DICOM file is damaged"),
    message("a deflated DICOM file becomes more than {most} bytes"),
    message("a DICOM file has more than {most} elements and items"),
    message("a DICOM file has more than {most} bytes before its pixel data"),
    message("a DICOM file has more than {most} bytes of elements"),
    message("a DICOM file has more than {most} fragments"),
    message("a DICOM sequence holds something other than items"),
    message("DICOM sequences are nested more than {most} deep"),
    message("an encapsulated DICOM value ends before its delimiter"),
    message("an encapsulated DICOM value is not made of fragments"),
    message("an offset table is for more than {most} frames"),
    message("pixel data is encapsulated, but its transfer syntax is not"),
    message("pixel data has {size} bytes; {declared} are declared"),
    message("pixel data is declared as YBR_FULL_422, but is not subsampled"),
    message("{samples} samples per pixel do not fit {name}"),
    message("{keyword} is missing or not a positive number"),
    message("{keyword} is missing"),
    message("{keyword} is not a number"),
    message("{keyword} has {count} values; expected 3"),
    message("{keyword} declares {bits} bits; expected 1 to 16"),
    message("{keyword} has {count} entries; {other} declares {declared}"),
    message("Segmented{keyword} has {count} entries; {declared} are declared"),
    message("RescaleSlope is 0; expected a factor that keeps values apart"),
    message("the file has {centers} WindowCenter and {widths} WindowWidth values"),
    message("VOILUTFunction is unknown; expected LINEAR, LINEAR_EXACT or SIGMOID"),
    message("a {name} window is too narrow"),
    message("a segmented palette ends within a segment"),
    message("a segmented palette has a segment that cannot be used"),
    message("a segmented palette refers back in a way readers differ on"),
    message("an encoded frame ends within its header"),
    message("an encoded frame is cut off before its end marker"),
    message(
        "an encoded frame is {rows} x {columns} x {samples}, but its file declares {own_rows} x "
        "{own_columns} x {own_samples}"
    ),
    message("a JPEG frame does not begin with its start marker"),
    message("a JPEG frame has no marker where one is due"),
    message("a JPEG frame is hierarchical or arithmetic, which is not supported"),
    message("a JPEG frame has no frame header"),
    message("a JPEG 2000 frame's wrapper holds no codestream"),
    message("a JPEG 2000 frame does not begin with its size marker"),
    message("a JPEG 2000 frame or its tiles are empty"),
    message("a JPEG 2000 frame has subsampled components, which is not supported"),
    message("a JPEG 2000 frame has {count} tiles or precincts; at most {most} are accepted"),
    message("a JPEG 2000 frame has code blocks of fewer than 256 samples"),
    message("an RLE frame has {count} segments; its file declares {declared}"),
    message("an RLE frame's segments are out of order"),
    message("an RLE frame does not expand to the size its file declares"),
)
"""What is said of a DICOM file's elements and of its encoded frames."""

NOTES = (
    message("the note has no text: nothing in it is a word or a sign"),
    message("the note has no text; leave the note out if there is none"),
    message("the note has {size} bytes; at most {most} are read"),
    message("the note has the control character 0x{number}; expected plain text"),
    message("the note is {kind}; expected plain text"),
    message("a PDF file"),
    message("an RTF file"),
    message("an XML file"),
    message("an HTML file"),
    message("the note's byte order mark says {encoding}, and its bytes are not; save it as UTF-8"),
    message("the note is neither UTF-8 nor a Western language in cp1252; {advice}"),
    message("the note is neither UTF-8 nor {encoding}; {advice}"),
    message("save it as UTF-8, or name its encoding in the setting note.legacy_encoding"),
)
"""What is said of a note."""

RECORDINGS = (
    message("the recording has {size} bytes; at most {most} are read"),
    message(
        "the recording's format is not known; expected WAV, FLAC, OGG, MP3 or a DICOM audio "
        "waveform object"
    ),
    message("the recording's format {name} is not read; expected WAV, FLAC, OGG or MP3"),
    message("the recording's DICOM object has {size} bytes; at most {most} are read"),
    message("the recording's DICOM object cannot be read: {error}"),
    message("its waveform is damaged ({fault})"),
    message("the recording's DICOM object holds no sound; expected {names}"),
    message("the recording lasts {duration} s; at least {least} s are needed"),
    message("the recording is longer than {most} s"),
    message("the recording declares {duration} s; at most {most} s are read"),
    message("the recording has {rate} samples per second; {lowest} to {highest} are read"),
    message("the recording has {channels} channels; 1 to {most} are read"),
    message("the recording has no samples"),
    message(
        "the recording's samples are not finite or far beyond full scale; expected samples from -1 "
        "to 1"
    ),
    message("the recording cannot be decoded: its file is damaged"),
    message("the recording cannot be decoded: its MP3 frames are damaged"),
    message(
        "the MP3 holds more sound than its header tells, or is damaged; send it as WAV or FLAC"
    ),
    message("WaveformSequence has {count} items; expected 1"),
    message("WaveformSampleInterpretation is not supported; expected one of {names}"),
    message(
        "WaveformBitsAllocated is not {allocated}, which WaveformSampleInterpretation {name} needs"
    ),
    message("WaveformBitsStored {stored} is not supported; expected one"),
    message("WaveformData has {size} bytes; its header declares {declared}"),
    message("the recording has no speech to write down; record it again, closer"),
    message("nothing that was said could be understood; record it again, closer"),
)
"""What is said of a recording, and of what was dictated."""

STEPS = (
    message("an explanation comes after the answer; press Predict first"),
    message("there is no answer to report; press Predict first"),
    message("the note was changed while its file was on the way; give it again"),
    message("the note was changed while the dictation was written down; give the dictation again"),
    message("the impression answers something that is not asked; load the page anew"),
    message("there is no such study on the worklist, or not any more"),
    message("a study's label has {count} characters; expected 1 to {most}, such as a pseudonym"),
    message("a study's label has a character that cannot be shown; leave it out"),
)
"""What is said of a step that cannot be taken now."""

REFUSALS = FILES + IMAGES + HEADERS + NOTES + RECORDINGS + STEPS
