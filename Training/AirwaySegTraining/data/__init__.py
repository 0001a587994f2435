"""Training data: cases on disk, and the patches that are cut from them.

`data_folder` adds, lists and removes cases (`label_check`, `case_folders`), `cases` reads and prepares them
(`prepared_files`), `sampling` and `augmentation` cut patches, `pseudo_labels` and `paste` make cases of real CTs.
"""
