"""What DATA may be, in words; without imports, so that a help text can show it at once."""

DATA_FORMS = (
    "'glyphs' (characters in many typefaces, drawn on this machine); a folder that holds a folder "
    "of images for each class, or train/, val/ and test/ with such class folders; a .csv, .tsv or "
    ".parquet file that lists images, with the columns path and label, and split if you have one; "
    "an .npz file with the arrays x and y, or x_train, y_train, x_test and y_test; or a .parquet "
    "file with the columns embedding and label."
)
