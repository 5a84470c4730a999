"""What the site takes from elsewhere in the repository, and formulas without scripts.

* Every notebooks/*.ipynb becomes a page, as it was stored, in the order of `FIRST`; scripts beside them are copied, for
  links to them.
* `<!-- readme: Limits -->` in a page stands for that section of the README.
* `<!-- help: bench -->` stands for what that command prints with --help.
* Formulas become MathML, which browsers show without a script.
"""

import base64
import html
import json
import os
import re
from pathlib import Path

from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

ROOT = Path(__file__).parents[2]
FIRST = ("quickstart", "derivation", "models", "performance", "sharding")
IMAGES = {"image/png": "png", "image/svg+xml": "svg"}
LONG_OUTPUT = 60  # lines


def on_config(config):
    paths = sorted((ROOT / "notebooks").glob("*.ipynb"), key=_rank)
    config.nav.append({"Notebooks": [f"notebooks/{path.stem}.md" for path in paths]})
    return config


def on_files(files, config):
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        for name, content in _notebook(path).items():
            files.append(File.generated(config, f"notebooks/{name}", content=content))
    for path in (ROOT / "notebooks").glob("*.py"):
        files.append(File.generated(config, f"notebooks/{path.name}", content=path.read_bytes()))
    for name in sorted(set(re.findall(IMAGE, _readme()))):
        files.append(File.generated(config, f"readme/{name}", content=(ROOT / name).read_bytes()))
    return files


def on_page_markdown(markdown, page, config, files):
    depth = "../" * page.file.src_uri.count("/")
    markdown = re.sub(r"<!-- readme: (.*?) -->", lambda match: _section(match[1], depth), markdown)
    return re.sub(r"<!-- help: (.*?) -->", lambda match: _help(match[1]), markdown)


def on_page_content(content, page, config, files):
    page.title = _plain(page.title)  # in the navigation, where formulas are not rendered
    entries = list(page.toc)
    while entries:
        entry = entries.pop()
        entry.title = _plain(entry.title)
        entries += entry.children
    return re.sub(r'<(span|div) class="arithmatex">(.*?)</\1>', _formula, content, flags=re.DOTALL)


def _rank(path):
    return FIRST.index(path.stem) if path.stem in FIRST else len(FIRST), path.stem


# Notebooks


def _notebook(path):
    """The page of a notebook, and the images on it, by name."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    files, parts = {}, []
    for cell in cells:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
        elif cell["cell_type"] == "code" and source.strip():
            parts.append(_fenced(source, "python"))
            parts += [_output(output, f"{path.stem}-{len(files)}", files) for output in cell["outputs"]]
    return files | {f"{path.stem}.md": "\n\n".join(parts) + "\n"}


def _output(output, name, files):
    data = output.get("data", {})
    for kind, suffix in IMAGES.items():
        if kind in data:
            content = "".join(data[kind])
            files[f"{name}.{suffix}"] = base64.b64decode(content) if suffix == "png" else content
            return f"![]({name}.{suffix})"
    if "text/markdown" in data:
        return "".join(data["text/markdown"])
    text = "".join(output.get("text", data.get("text/plain", output.get("traceback", ""))))
    text = re.sub(r"\x1b\[[0-9;]*m", "", text).rstrip()
    lines = text.splitlines()
    if len(lines) > LONG_OUTPUT:
        text = "\n".join([*lines[:LONG_OUTPUT], f"... {len(lines) - LONG_OUTPUT} more lines"])
    return _fenced(text, "{ .text .output }") if text else ""


def _fenced(text, language):
    fence = "`" * max(3, 1 + max(map(len, re.findall(r"`+", text)), default=0))
    return f"{fence}{language}\n{text}\n{fence}"


# The README and the command line

IMAGE = r"(?:!\[[^\]]*\]\(|<img[^>]*? src=\")(?!https?:|/)([^)\"\s]+)"


def _readme():
    return (ROOT / "README.md").read_text(encoding="utf-8")


def _section(title, depth):
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", _readme(), re.DOTALL | re.MULTILINE)
    if not found:
        raise PluginError(f"README.md has no section {title!r}")
    text = re.sub(IMAGE, lambda match: match[0].replace(match[1], f"{depth}readme/{match[1]}"), found[1])
    text = re.sub(r"\[([^\]]*)\]\(#[^)]*\)", r"\1", text)  # another section may be on another page
    text = text.replace("](.github/docs/pages/", f"]({depth}")
    return re.sub(r"<!--.*?-->\n?", "", text)


def _help(command):
    os.environ["COLUMNS"] = "80"
    from jaxinv._cli.main import parsers

    return _fenced(parsers()[command].format_help().rstrip(), "text")


# Formulas


def _plain(title):
    return re.sub(r"\\\((.*?)\\\)", lambda match: re.sub(r"\\\w+|[{}\\]", "", match[1]), title)


def _formula(match):
    """MathML in place of LaTeX."""
    latex = html.unescape(match[2]).strip()[2:-2].strip()
    tag = re.search(r"\\tag\{(.*?)\}", latex)
    latex = re.sub(r"\\tag\{.*?\}", "", latex).replace(r"\;\to\;", r"\to ")
    mathml = convert(latex, display="inline" if match[1] == "span" else "block")
    mathml = mathml.replace('mathvariant="sans-serif"', 'mathvariant="normal"')  # what browsers know
    unknown = re.search(r"\\\w+", mathml)
    if unknown:
        raise PluginError(f"latex2mathml does not know {unknown[0]} in {latex}")
    if match[1] == "span":
        return mathml
    number = f'<span class="number">({tag[1]})</span>' if tag else ""
    return f'<div class="formula">{mathml}{number}</div>'
