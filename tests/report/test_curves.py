from xml.etree import ElementTree as ET

from keras_unet.report.charts import curves_svg


def test_a_curve_is_drawn_in_the_colours_of_the_page():
    text = curves_svg("loss", {"": [(10, 0.7), (30, 0.2)]})
    ET.fromstring(text)  # noqa: S314 - made here
    assert text.startswith("<svg")
    assert "var(--line)" in text
    assert "currentColor" in text
    assert "#01020" not in text
    assert "loss" in text


def test_the_highest_value_is_marked_with_its_number():
    curve = [(1, 0.1), (2, 0.81234), (3, 0.4)]
    text = curves_svg("SEG", {"": curve}, highest=True)
    assert "0.8123" in text
    assert "var(--mark)" in text
    assert "var(--mark)" not in curves_svg("SEG", {"": curve})


def test_the_same_values_give_the_same_drawing():
    curves = {"": [(1, 0.5), (2, 0.25)]}
    assert curves_svg("a", curves) == curves_svg("a", curves)


def test_a_single_value_is_drawn():
    assert "var(--line)" in curves_svg("loss", {"": [(5, 0.3)]})


def test_markup_in_a_name_stays_text():
    assert "<b>" not in curves_svg("<b>", {"<i>": [(1, 0.5)]})


def test_each_of_several_curves_is_named_at_its_end_and_marked_at_its_highest():
    several = {"1": [(1, 0.1), (2, 0.5)], "fold two": [(1, 0.3), (3, 0.81234)]}
    text = curves_svg("SEG", several, highest=True)
    assert ">fold two<" in text
    assert "0.8123" not in text
    assert text.count("var(--mark)") > curves_svg("SEG", {"1": several["1"]}).count("var(--mark)")
