from xml.etree import ElementTree as ET

from keras_unet.html.curves import curve_svg


def test_a_curve_is_drawn_in_the_colours_of_the_page():
    text = curve_svg("loss", [10, 20, 30], [0.7, None, 0.2])
    ET.fromstring(text)  # noqa: S314 - made here
    assert text.startswith("<svg")
    assert "var(--line)" in text
    assert "currentColor" in text
    assert "#01020" not in text
    assert "loss" in text


def test_the_highest_value_is_marked_with_its_number():
    text = curve_svg("SEG", [1, 2, 3], [0.1, 0.81234, 0.4], highest=True)
    assert "0.8123" in text
    assert "var(--mark)" in text
    assert "var(--mark)" not in curve_svg("SEG", [1, 2], [0.1, 0.2])


def test_the_same_values_give_the_same_drawing():
    assert curve_svg("a", [1, 2], [0.5, 0.25]) == curve_svg("a", [1, 2], [0.5, 0.25])


def test_a_single_value_is_drawn():
    assert "var(--line)" in curve_svg("loss", [5], [0.3])


def test_markup_in_a_name_stays_text():
    assert "<b>" not in curve_svg("<b>", [1], [0.5])
