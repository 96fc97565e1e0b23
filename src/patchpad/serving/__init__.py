"""A server that speaks the API of OpenAI, and the playground. Needs the extra `serve`."""
