"""The reference site: `sphinx-build -W docs build/site`. The pages are the Markdown files of this folder."""
