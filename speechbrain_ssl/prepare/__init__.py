"""From folders of audio to manifests: list, convert, probe, scan, note."""
