"""Where objects lie: S3 or a directory, with one way to put, get, list and delete them."""
