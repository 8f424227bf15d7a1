"""Teachers: how they are built (`build`), how they answer (`live`, `ensemble`) and how answers are kept (`cache`)."""
