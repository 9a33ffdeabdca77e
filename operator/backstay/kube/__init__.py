"""The one door to the Kubernetes API: plain JSON objects in and out, and errors that say what was being done."""
