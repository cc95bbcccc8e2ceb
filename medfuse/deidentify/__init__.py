"""De-identification: notes, DICOM, recordings and pictures in; the same without identity out."""
