"""The endpoints: OpenAI's, of which Azure has most, and those in which Together's API differs."""
