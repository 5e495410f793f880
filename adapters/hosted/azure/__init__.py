"""`hosted/azure`: Azure OpenAI."""
