"""What trains, answers and grades behind the API, in processes of its own."""
