from keras_unet.report.tables import Table, print_tables


def printed(capsys, *tables):
    print_tables(tables)
    return capsys.readouterr().out.splitlines()


def test_columns_are_aligned_below_their_headings(capsys):
    table = Table("Scores", ["image", "IoU"], [["a", "0.5000"], ["longer", "-"]], ["all", "1"])
    lines = printed(capsys, table)
    assert lines[0] == "Scores"
    assert lines[1].rstrip() == "image      IoU"
    assert [line.rstrip() for line in lines[3:6]] == [
        "a       0.5000",
        "longer       -",
        "all          1",
    ]


def test_no_codes_of_a_terminal_are_written_into_a_pipe(capsys):
    lines = printed(capsys, Table("t", ["image", "IoU"], [["a", "1"]], ["all", "1"], "a note"))
    assert not any("\x1b" in line for line in lines)
    assert "a note" in lines


def test_names_are_no_markup(capsys):
    lines = printed(capsys, Table("[red]", ["image", "IoU"], [["[bold]:smile:", "1"]]))
    assert lines[0] == "[red]"
    assert lines[3].split() == ["[bold]:smile:", "1"]


def test_wide_letters_take_two_columns(capsys):
    lines = printed(capsys, Table("t", ["image", "IoU"], [["細胞", "0.5"], ["abcd", "0.5"]]))
    assert lines[3].index("0.5") == lines[4].index("0.5") - 2
