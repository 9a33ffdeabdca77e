"""BackupPolicy: when a backup is due, and the Backup that it then orders."""
