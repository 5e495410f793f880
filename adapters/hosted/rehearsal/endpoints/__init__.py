"""OpenAI's endpoints, most of which Azure has too."""
