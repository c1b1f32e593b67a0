"""What the report says and how it looks: verdict, figures, sections, template."""
