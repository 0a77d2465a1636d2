"""From folders of audio to manifests: list, probe, convert, scan, and report."""
