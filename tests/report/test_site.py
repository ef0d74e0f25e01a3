"""The report site, built once from the committed notebooks and looked at in a browser."""

import json
from urllib.parse import unquote, urlsplit

import pytest
from bs4 import BeautifulSoup

from bnnlib import UserError, paths
from bnnlib.report import notebooks, site


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return site.build(out=tmp_path_factory.mktemp("site") / "html").parent


@pytest.fixture(scope="module")
def pages(built):
    """Every page of the site but those of Sphinx itself, by its path."""
    found = {path.relative_to(built).as_posix(): path for path in built.rglob("*.html")}
    assert {"index.html", "figures.html", "search.html", "data/README.html"} <= set(found)
    assert {f"notebooks/{path.stem}.html" for path in notebooks.find()} <= set(found)
    return {name: BeautifulSoup(path.read_text(), "html.parser") for name, path in found.items()}


def test_the_front_page_has_the_figure_the_claims_and_the_way_on(pages):
    page = pages["index.html"]
    assert page.select_one('img[src$="claims_accuracy_energy.png"]')["alt"]
    assert len(page.select("table tr")) > 30
    listed = [link.text for link in page.select(".sidebar-tree a")]
    assert [text[:2] for text in listed if text[0].isdigit()] == [path.stem[:2] for path in notebooks.find()]
    assert {"Figures", "Data"} <= set(listed)


def test_every_link_leads_somewhere(built, pages):
    anchors = {name: {tag["id"] for tag in page.select("[id]")} for name, page in pages.items()}
    wrong = []
    for name, page in pages.items():
        for tag in page.select("a[href], img[src], link[href], script[src]"):
            target = urlsplit(tag.get("href") or tag.get("src"))
            if target.scheme:
                if tag.name != "a":
                    wrong.append(f"{name} loads {target.geturl()} from elsewhere")
                continue
            file = (built / name).parent / unquote(target.path) if target.path else built / name
            place = file.resolve().relative_to(built.resolve()).as_posix()
            if not file.is_file():
                wrong.append(f"{name}: {target.geturl()}")
            elif target.fragment and place in anchors and unquote(target.fragment) not in anchors[place]:
                wrong.append(f"{name}: no {target.fragment} in {place}")
    assert wrong == []


def test_every_picture_has_a_text(pages):
    assert [
        (name, str(image)[:99]) for name, page in pages.items() for image in page.select("img") if not image.get("alt")
    ] == []


def test_each_figure_leads_to_its_notebook_its_data_and_its_command(pages):
    sections = {heading.find(string=True): heading.parent for heading in pages["figures.html"].select("section > h2")}
    for path in paths.FIGURES.glob("*.json"):
        sidecar, section = json.loads(path.read_text()), sections[path.stem]
        links = {link["href"] for link in section.select("a[href]")}
        assert f"notebooks/{sidecar['made_by']}.html" in links
        names = {link.rsplit("/", 1)[-1] for link in links}
        wanted = {source["path"].rsplit("/", 1)[-1] for source in sidecar["sources"]}
        assert wanted | {path.name, f"{path.stem}.pdf", f"{path.stem}.png"} <= names
        assert f"bnn reproduce --only {sidecar['made_by'][:2]}" in section.text
        back = pages[f"notebooks/{sidecar['made_by']}.html"].select(f'a[href$="/figures.html#{section["id"]}"]')
        assert [link.text for link in back] == [path.stem]


def test_formulas_are_drawn_by_the_browser_alone(pages):
    formulas = pages["notebooks/02_quantizers.html"].select("math")
    assert len(formulas) > 40 and all(formula.contents for formula in formulas)
    assert not any("mathjax" in script.get("src", "").lower() for page in pages.values() for script in page("script"))


@pytest.mark.parametrize("width", [390, 1440])
def test_every_page_opens_without_errors_on_phone_and_desk(browser, built, pages, width):
    said = []
    context = browser.new_context(viewport={"width": width, "height": 900}, offline=True)
    page = context.new_page()
    page.on("console", lambda message: said.append(f"{page.url}: {message.text}") if message.type == "error" else None)
    page.on("pageerror", lambda error: said.append(f"{page.url}: {error}"))
    page.on("requestfailed", lambda request: said.append(f"{page.url}: no {request.url}"))
    for name in pages:
        page.goto(f"file://{built / name}")
        over = page.evaluate("document.scrollingElement.scrollWidth - window.innerWidth")
        broken = page.evaluate("[...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src)")
        said += [f"{name} is {over} pixels too wide"] * (over > 0) + broken
    context.close()
    assert said == []


def test_the_search_finds_without_a_server(browser, built):
    page = browser.new_page()
    page.goto(f"file://{built}/search.html?q=safetensors")
    page.wait_for_selector("#search-results li a")
    found = page.locator("#search-results li a").all_inner_texts()
    assert any("Packed" in title for title in found)
    page.close()


# --- building ---------------------------------------------------------------------------------------------------------


def test_executed_copies_go_before_the_committed_notebooks(tmp_path):
    copy = notebooks.read(paths.NOTEBOOKS / "00_index.ipynb")
    copy["cells"][0]["source"] += "\n\nexecuted just now"
    path = tmp_path / "00_index.ipynb"
    path.write_text(json.dumps(copy))
    site._collect(tmp_path / "source", {path.name: path})
    assert "executed just now" in (tmp_path / "source" / "notebooks" / path.name).read_text()
    assert "executed just now" not in (tmp_path / "source" / "notebooks" / "01_review.ipynb").read_text()


def test_links_to_nowhere_stop_the_report(tmp_path):
    source = tmp_path / "source"
    (source / "_static").mkdir(parents=True)
    (source / "_static" / "site.css").touch()
    links = ["gone.md", "#nowhere", "notebooks/99.ipynb", "bnnlib/gone.py"]
    (source / "index.md").write_text("# Title\n\n" + "\n\n".join(f"[there]({link})" for link in links))
    with pytest.raises(UserError, match=r"cannot be built, 4 mistakes; the first: index.md:3.*gone\.md"):
        site._sphinx(source, tmp_path / "html", tmp_path / "doctrees")


def test_only_a_report_is_replaced(tmp_path):
    built = tmp_path / "built"
    built.mkdir()
    (built / site.MARK).write_text("new")
    out = tmp_path / "out"
    site._replace(out, built)
    (out / site.MARK).write_text("old")
    site._replace(out, built)
    assert (out / site.MARK).read_text() == "new"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    (tmp_path / "file").touch()
    for taken in ("mine", "file"):
        with pytest.raises(UserError, match="holds something that is no report; name an empty folder with --out"):
            site._replace(tmp_path / taken, built)
    assert (tmp_path / "mine" / "thesis.tex").exists()
    with pytest.raises(UserError, match="cannot write"):
        site._replace(tmp_path / "file" / "below", built)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["built", "file", "mine", "out"]
