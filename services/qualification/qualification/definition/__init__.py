"""The signed definition: the document, what is checked of it, how it reads on paper, and its rules, compiled."""
