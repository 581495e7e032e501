"""Reading images: files, tar shards, arrays and DICOM to 8-bit RGB."""
