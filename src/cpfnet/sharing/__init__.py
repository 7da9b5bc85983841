"""Hand a Model on: as one ZIP file (`pack`, `unpack`), or through a hub (`push`, `download`, `pull`)."""
