"""An answer, its explanations and its study in; a PDF report that can be checked out."""
