"""In Matplotlib's place where no test looks at the curves: to load it and to draw takes half of the time of a short run."""


class Figure:
    """What is asked of it, of its panels and of their lines is noted, and the notes are its picture."""
    def __init__(self, **_):
        self.notes = []

    def __repr__(self):
        return 'that'

    def __getattr__(self, name):
        return self

    def __getitem__(self, key):
        return self

    def __iter__(self):
        return iter([self])

    def __call__(self, *what, **how):
        self.notes.append(f'{what} {how}\n')
        return self

    def savefig(self, file, **how):
        file.write(''.join(self.notes).encode())
