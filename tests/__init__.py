"""Tests of Backstay, grouped by what they need: nothing, an S3 server, or a cluster."""
