"""Documents of other tools: parsed document in, wanted objects out; nothing here touches a table."""
