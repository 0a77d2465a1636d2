"""Write, test, upload and read model folders that stock SpeechBrain loads."""
