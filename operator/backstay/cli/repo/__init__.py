"""`backstay repo`: a repository without any cluster, by commands and options that restic's users know."""
