"""Which utterances count as positives: beyond two crops of the same one."""
