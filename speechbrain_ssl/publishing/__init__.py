"""Folders that stock SpeechBrain loads."""
