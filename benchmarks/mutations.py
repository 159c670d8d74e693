"""What a line of Python may be changed into: for mutants.py."""
import ast
import random
import re
from itertools import pairwise
from typing import NamedTuple

TEXTS = 'help', 'metavar', 'description', 'desc', 'title'       # arguments that are but messages
SWAPS = {
    ast.Lt: ('<', '<=', '>='), ast.LtE: ('<=', '<', '>'), ast.Gt: ('>', '>=', '<='), ast.GtE: ('>=', '>', '<'),
    ast.Eq: ('==', '!='), ast.NotEq: ('!=', '=='), ast.Is: ('is', 'is not'), ast.IsNot: ('is not', 'is'),
    ast.In: ('in', 'not in'), ast.NotIn: ('not in', 'in'), ast.And: ('and', 'or'), ast.Or: ('or', 'and'),
    ast.Add: ('+', '-'), ast.Sub: ('-', '+'), ast.Mult: ('*', '/', '+'), ast.Div: ('/', '*'), ast.FloorDiv: ('//', '*'),
    ast.Mod: ('%', '//'), ast.Pow: ('**', '*'), ast.MatMult: ('@', '*'), ast.BitAnd: ('&', '|'), ast.BitOr: ('|', '&'),
    ast.LShift: ('<<', '>>'), ast.RShift: ('>>', '<<')}


class Places(ast.NodeVisitor):
    """The places of a source: self.found is {(first byte, behind the last): (first line, last line, [what may stand there])}.
    Whoever runs one of the lines may notice. Of what is not in a function, those are all lines in functions, or else line 0, which
    stands for the import."""

    def __init__(self, source):
        self.source, self.found, tree = source, {}, ast.parse(source)
        self.starts = [0, *(match.end() for match in re.finditer(b'\n', source))]
        functions = any(isinstance(node, (ast.FunctionDef, ast.Lambda)) for node in ast.walk(tree))
        self.lines, self.depth = (int(functions), len(self.starts)), 0
        self.visit(tree)

    def at(self, node):
        return self.starts[node.lineno - 1] + node.col_offset, self.starts[node.end_lineno - 1] + node.end_col_offset

    def add(self, span, *texts):
        self.found.setdefault(span, (*self.lines, []))[2].extend(text.encode() for text in texts)

    def swap(self, left, right, operator):
        """The operator between two nodes."""
        old, *new = SWAPS[type(operator)]
        start, end = self.at(left)[1], self.at(right)[0]
        if (at := self.source.find(old.encode(), start, end)) >= 0:
            self.add((at, at + len(old)), *new)

    def visit(self, node):
        if self.depth and isinstance(node, (ast.stmt, ast.ExceptHandler)):  # the lines of its head: those before what is in it
            inside = getattr(node, 'body', None)
            self.lines = node.lineno, max(node.lineno, inside[0].lineno - 1) if inside else node.end_lineno
        super().visit(node)

    def visit_all(self, nodes):
        for node in nodes:
            self.visit(node)

    def ignore(self, node):
        pass

    visit_JoinedStr = visit_Assert = visit_Import = visit_ImportFrom = visit_Global = ignore

    def visit_FunctionDef(self, node):            # no annotations
        around, self.lines = self.lines, (node.body[0].lineno, node.end_lineno)
        self.visit_all([*node.decorator_list, *node.args.defaults, *filter(None, node.args.kw_defaults)])
        self.depth += 1
        self.visit_all(node.body)
        self.depth, self.lines = self.depth - 1, around

    def visit_AnnAssign(self, node):
        self.visit_all([node.value] if node.value else [])

    def visit_Raise(self, node):
        self.add(self.at(node), 'pass')

    def visit_If(self, node):
        if ast.unparse(node.test) != "__name__ == '__main__'":
            self.choice(node)

    def choice(self, node):
        self.add(self.at(node.test), 'True', 'False')
        self.generic_visit(node)

    visit_IfExp = choice

    def visit_While(self, node):
        self.add(self.at(node.test), 'False')
        self.generic_visit(node)

    def visit_comprehension(self, node):
        for condition in node.ifs:
            self.add(self.at(condition), 'True')
        self.generic_visit(node)

    def visit_Expr(self, node):
        if not isinstance(node.value, ast.Constant):                        # a docstring
            self.add(self.at(node), 'pass')
            self.generic_visit(node)

    def visit_Delete(self, node):
        self.add(self.at(node), 'pass')

    def visit_Assign(self, node):
        if all(isinstance(target, (ast.Attribute, ast.Subscript)) for target in node.targets):
            self.add(self.at(node), 'pass')
        self.generic_visit(node)

    def visit_AugAssign(self, node):
        self.add(self.at(node), 'pass')
        self.swap(node.target, node.value, node.op)
        self.generic_visit(node)

    def visit_Return(self, node):
        if node.value and ast.unparse(node.value) != 'None':
            self.add(self.at(node.value), 'None')
            self.generic_visit(node)

    def visit_Break(self, node):
        self.add(self.at(node), 'continue')

    def visit_Continue(self, node):
        self.add(self.at(node), 'break')

    def visit_Compare(self, node):
        for (left, right), operator in zip(pairwise([node.left, *node.comparators]), node.ops):
            self.swap(left, right, operator)
        self.generic_visit(node)

    def visit_BoolOp(self, node):
        for left, right in pairwise(node.values):
            self.swap(left, right, node.op)
        self.generic_visit(node)

    def visit_BinOp(self, node):
        if not is_text(node.left) and not is_text(node.right):              # a message in parts
            self.swap(node.left, node.right, node.op)
        self.generic_visit(node)

    def visit_UnaryOp(self, node):
        start, width = self.at(node)[0], 3 if isinstance(node.op, ast.Not) else 1
        self.add((start, start + width), '')
        self.generic_visit(node)

    def visit_Constant(self, node):
        if isinstance(node.value, bool):
            self.add(self.at(node), str(not node.value))
        elif isinstance(node.value, (int, float)):
            self.add(self.at(node), str(node.value + 1), *[str(2 * node.value)] * (node.value not in (0, 1)))

    def visit_Slice(self, node):
        for bound in filter(None, (node.lower, node.upper)):
            self.add(self.at(bound), '')
        self.generic_visit(node)

    def visit_Call(self, node):                   # a keyword goes, or two arguments that look alike change places
        arguments = sorted([*node.args, *node.keywords], key=self.at)
        for before, argument in zip([None, *arguments], arguments):
            if isinstance(argument, ast.keyword) and argument.arg not in TEXTS:
                start, end = self.at(argument)
                self.add((self.at(before)[1] if before else start, end), '')
        for left, right in pairwise(node.args):
            if type(left) is not type(right) or is_text(left):
                continue
            start, middle, behind, end = *self.at(left), *self.at(right)
            a, between, b = (self.source[i:j].decode() for i, j in pairwise([start, middle, behind, end]))
            self.add((start, end), b + between + a)
        self.generic_visit(node)


def is_text(node):
    return isinstance(node, ast.JoinedStr) or isinstance(node, ast.Constant) and isinstance(node.value, str)


class Mutant(NamedTuple):
    file: str
    line: int
    first: int                      # and last: the lines of the statement, or of its head
    last: int
    source: bytes
    before: str                     # and after: the lines that differ, in one
    after: str


def draw_mutants(root, number, seed):
    """(so many mutants, the number of places). The same source, number and seed give the same ones; each place is as likely."""
    sources = {path: path.read_bytes() for path in [*sorted((root / 'tinygan').rglob('*.py')), root / 'train_mnist.py']}
    places = [(path, *place) for path, source in sources.items() for place in sorted(Places(source).found.items())]
    chance, drawn = random.Random(seed), []
    for path, (start, end), (first, last, texts) in chance.sample(places, len(places)):
        right, text = sources[path], chance.choice(texts)
        wrong = right[:start] + text + right[end:]
        if differ(right, wrong):
            left, behind = right.rfind(b'\n', 0, start) + 1, right.find(b'\n', end)
            before, after = (b' '.join(lines.split()).decode()
                             for lines in (right[left:behind], wrong[left:behind + len(wrong) - len(right)]))
            drawn.append(Mutant(str(path.relative_to(root)), 1 + right.count(b'\n', 0, start), first, last, wrong, before, after))
        if len(drawn) == number:
            break
    return drawn, len(places)


def differ(right, wrong):
    """The one is Python, as the other is, and says something else."""
    try:
        return ast.dump(ast.parse(wrong)) != ast.dump(ast.parse(right))
    except SyntaxError:
        return False
