"""Write manifests of folders of audio: list, convert, probe and scan files."""
