"""Tables as laboratories write them: files and sheets, and what is wrong with them."""

import os
import pathlib
import sys

import numpy as np
import pandas
import pytest

import spinkeras
from spinkeras import calibration
from tests.calibration.lab import (
    CURRENT,
    SWITCHED,
    TABLE,
    lines,
    read_quietly,
    same,
    write,
)

# --- formats -------------------------------------------------------------------------------------

FORMATS = {
    "units in brackets": lines("I (uA),t_p (ns),n_sw,N", "{i},2,{k},1000"),
    "units at the end": lines("I_uA,t_p_ns,switched,n_reps", "{i},2,{k},1000"),
    "units after a slash": lines("I/µA,tp/ns,P_sw,trials", "{i},2,{p},1000"),
    "brackets": lines("Current [mA],Pulse width [ps],Prob.,Shots", "{i}e-3,2000,{p},1e3"),
    "percent": lines("I (uA);width (ns);P (%);N", "{i};2;{p}e2;1000", ";"),
    "percent signs": lines("I (uA);width (ns);P;N", "{i};2;{p}e2%;1000", ";"),
    "decimal comma": lines("I (uA);t_p (ns);P_sw;n_reps", "{i};2,0;{p};1000", ";", ","),
    "tabs": lines("I_uA|t_p (ns)|P_sw|n_reps", "{i}|2|{p}|1000", "\t"),
    "tabs and decimal comma": lines("I_uA|t (ns)|P_sw|n_reps", "{i}|2|{p}|1000", "\t", ","),
    "spaces": lines("I (uA)  t_p (ns)  P_sw  N", "{i}  2 {p} 1000"),
    "comments": "% setup 3\n# 300 K\n" + lines("I_uA,t_ns,P,N", "{i},2,{p},1000") + "% end\n",
    "names in a comment": lines("# I_uA t_ns P N", "{i} 2 {p} 1000"),
    "units below the names": lines("I|t|P|N\nuA|ns||", "{i}|2|{p}|1000", "\t"),
    "units in brackets below": lines("I,t_p,P_sw,N\n[uA],[ns],[%],", "{i},2,{p}e2,1000"),
    "quoted, over two lines": lines('"I\n(uA)","t_p\n(ns)",P,N', '"{i}",2,{p},1000'),
    "a mark at the end of lines": lines("I_uA;t_ns;P;N;", "{i};2;{p};1000;"),
    "units and a comment below": lines("I|t|P|N\nuA|ns||\nset|set|run 7|", "{i}|2|{p}|1000", "\t"),
    "units of counts below": lines("I|t|n_sw|N\nuA|ns|counts|#", "{i}|2|{k}|1000", "\t"),
    "units of numbers": lines("I [uA],t [ns],P [-],N [1]", "{i},2,{p},1000"),
    "units with in": lines("I in uA;t_p in ns;P in %;N", "{i};2;{p}e2;1000", ";"),
    "wide brackets": lines("I\uff08\u3382\uff09,t\uff08\u33b1\uff09,P,N", "{i},2,{p},1000"),
    "hard spaces": lines("I\u00a0(uA),t_p\u202f(ns),P,N", "\u00a0{i},2\u2009,{p},1000"),
    "minus of Unicode": lines("I (A),t_p (s),P,N", "{i}e\u22126,2e\u20139,{p},1000"),
    "empty columns": lines(",I_uA,,,t_ns,P,N,,", ",{i},,,2,{p},1000,,"),
    "marks after the rows": lines("I_uA;t_ns;P;N", "{i};2;{p};1000;;"),
    "names in the table's own order": lines("N,P,t_ns,I_uA", "1000,{p},2,{i}"),
    "drive by its unit": lines("amplitude (uA),duration (ns),k_sw,n", "{i},2,{k},1000").replace(
        "k_sw", "n_sw"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMATS)
def test_formats_of_laboratories(tmp_path, name):
    with pytest.warns(UserWarning, match=r"^lab.csv: guessed .* as current in .*trials") as caught:
        table = calibration.read_table(write(tmp_path, FORMATS[name]))
    assert len(caught) == 1  # one line
    same(table)


def test_what_excel_and_old_programs_write(tmp_path):
    text = FORMATS["units after a slash"]
    mark = next(m for m in ";\t," if m in text)
    same(read_quietly(write(tmp_path, f"sep={mark}\n{text}")))
    same(read_quietly(write(tmp_path, text.replace("\n", "\r"))))
    with pytest.raises(ValueError, match="zero bytes, as UTF-16 without its mark"):
        read_quietly(write(tmp_path, text, encoding="utf-16-le"))


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_the_last_cell_of_the_last_line_may_be_empty(tmp_path, mark):
    text = lines("I_uA|t_ns|P|N|note", "{i}|2|{p}|1000|", mark)
    same(read_quietly(write(tmp_path, text)))
    same(read_quietly(write(tmp_path, text + "\n \n" + 4 * mark + "\n")))


@pytest.mark.parametrize("encoding", ["utf-16", "cp1252", "utf-8-sig"])
def test_encodings(tmp_path, encoding):
    same(read_quietly(write(tmp_path, FORMATS["units after a slash"], encoding=encoding)))


@pytest.mark.parametrize("before", ["", "# probe station 3\n", "\n% 300 K\n\n# \u00b0C\n"])
@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_names_in_the_encoding_of_windows_may_follow_comments(tmp_path, before, mark):
    text = before + lines("I [\u00b5A]|t [ns]|P_sw|N", "{i}|2|{p}|1000", mark)
    with pytest.warns(UserWarning, match="guessed the encoding Windows-1252"):
        same(calibration.read_table(write(tmp_path, text, encoding="cp1252")))
    spoiled = text + text.splitlines()[-1].replace("1000", "1000\u00b5")
    with pytest.raises(ValueError, match=r"is not text in UTF-8.*save the file in UTF-8"):
        calibration.read_table(write(tmp_path, spoiled, encoding="cp1252"))


def test_voltages_and_data_frames():
    frame = pandas.DataFrame(
        {"V (mV)": CURRENT * 1e-6 * 2500 * 1e3, "t_p (ns)": 2.0, "P_sw": SWITCHED / 1000, "N": 1000}
    )
    same(read_quietly(frame, 2500.0))
    same(read_quietly(frame[frame["N"] > 0].set_index(np.arange(6) + 7), 2500.0))


def test_workbooks(tmp_path, monkeypatch):
    pytest.importorskip("openpyxl")
    frame = pandas.DataFrame({"I_uA": CURRENT, "t_ns": 2, "P_sw": SWITCHED / 1000, "N": 1000})
    path = tmp_path / "lab.xlsx"
    with pandas.ExcelWriter(path) as book:
        frame.to_excel(book, sheet_name="run 1", index=False)
        pandas.DataFrame().to_excel(book, sheet_name="empty")
    same(read_quietly(path))
    with pandas.ExcelWriter(path) as book:
        for name in ("run 1", "run 2"):
            frame.to_excel(book, sheet_name=name, index=False)
    same(read_quietly(path, sheet="run 2"))
    with pytest.raises(ValueError, match=r"has the sheets \['run 1', 'run 2'\]; choose one"):
        calibration.read_table(path)
    with pytest.raises(ValueError, match=r"no sheet 'run 3' with cells"):
        calibration.read_table(path, sheet="run 3")
    frame["N"] = frame["N"].astype(object)
    frame.loc[2, "N"] = "many"
    frame.to_excel(path, index=False)
    with pytest.raises(ValueError, match=r"lab\.xlsx, line 4: N = 'many' is not a number"):
        read_quietly(path)


def test_a_text_may_have_the_name_of_a_workbook(tmp_path):
    same(read_quietly(write(tmp_path, FORMATS["tabs"], "lab.xls")))
    with pytest.raises(ValueError, match=r"lab.xls is a text file; leave sheet out"):
        calibration.read_table(tmp_path / "lab.xls", sheet="run 1")


def test_what_people_add_to_workbooks(tmp_path):
    """A title above, columns without names, notes beside, cells that are merged."""
    pytest.importorskip("openpyxl")
    path = tmp_path / "lab.xlsx"
    rows = [[None, "I_uA", None, "t_ns", "n_sw", "N", None, "note"]]
    rows += [[None, i, None, 2, k, 1000, None, None] for i, k in zip(CURRENT, SWITCHED)]

    def save(rows):
        pandas.DataFrame(rows).to_excel(path, index=False, header=False)
        return path

    same(read_quietly(save(rows)))
    same(read_quietly(save([[None] * 8, ["# run 7"], *rows])))
    same(read_quietly(save([*rows[:2], [None] * 8, *rows[2:]])))
    for above in (["run 7"], [None, "drive", None, None, "result"]):
        with pytest.raises(ValueError, match=r"If a later line has the names, put # in front"):
            read_quietly(save([above + [None] * (8 - len(above)), *rows]))
    rows[3][3] = None
    with pytest.raises(ValueError, match=r"line 4: t_ns = '' is not a number.*leave out rows"):
        read_quietly(save(rows))


def test_workbooks_need_openpyxl_and_say_so(tmp_path, monkeypatch):
    pandas.DataFrame(TABLE).to_excel(tmp_path / "lab.xlsx")
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(ImportError, match="is a workbook, which needs openpyxl"):
        calibration.read_table(tmp_path / "lab.xlsx")


# --- malformed -----------------------------------------------------------------------------------

HEAD = "I_uA,t_ns,P,N\n"
MALFORMED = {
    "empty": ("", {}, "is empty"),
    "comments only": ("# a\n% b\n", {}, "is empty"),
    "names only": (HEAD, {}, "has no rows"),
    "no names": ("60,2,0.1,50\n", {}, r"no line of names: its first line is '60, 2, 0\.1, 50'"),
    "names twice": (HEAD + "60,2,0.1,50", {"columns": ["a"] * 4}, "a line of names"),
    "too few names": ("60,2,0.1,50", {"columns": ["current_a"]}, "4 values, but columns names 1"),
    "no drive": ("t_ns,P,N\n2,0.1,50", {}, "needs one column for the drive"),
    "two drives": ("I_uA,V," + "t_ns,P,N\n60,1,2,0.1,50", {}, r"\['I_uA', 'V'\] may all be"),
    "two of a kind": ("I_uA,I (mA),t_ns,P,N\n60,1,2,0.1,50", {}, r"all be current_a. Choose one"),
    "no width": ("I_uA,P,N\n60,0.1,50", {}, r"lacks the columns \['pulse_width_s'\]"),
    "shares, no trials": ("I_uA,t_ns,P\n60,2,0.1", {}, "Fractions need the number of trials"),
    "no outcome": ("I_uA,t_ns,N\n60,2,50", {}, r"lacks the columns \['switched'\]"),
    "column twice": ("I_uA,I_uA,t_ns,P,N\n60,60,2,0.1,50", {}, r"\['I_uA'\] more than once"),
    "quote": (HEAD + '60,2,"0.1,50\n', {}, "is not valid CSV"),
    "quoted decimal commas": (HEAD + '"60,0",2,"0,1",50', {}, "'60,0' is not a number.*a decimal"),
    "spaces for thousands": (HEAD + "60\u00a0000,2,0.1,50", {}, "is not a number.*mark for thousa"),
    "two numbers in a cell": (HEAD + "60,2,12/50,50", {}, "'12/50' is not a number. Write one num"),
    "raised digits": (HEAD + "6\u00b2,2,0.1,50", {}, "is not a number"),
    "no value": (HEAD + "60,2,-,50", {}, "'-' is not a number.*leave out rows without a value"),
    "no value at first": ("I,t,P,N\nuA,ns,-,-\n-,-,-,\n,2,0.1,50", {}, "line 4: I .uA. = '' is"),
    "mean of all": (HEAD + "60,2,0.1,50\nmean,,0.1,", {}, "line 3: I_uA = 'mean' is not a number"),
    "density": ("I (MA/cm2),t_ns,P,N\n6,2,0.1,50", {}, r"\['I .MA/cm2.'\] hold no known unit"),
    "density below": ("I,t,P,N\nMA/cm2,ns,,\n6,2,0.1,50", {}, "'I .MA/cm2.'. hold no known"),
    "density, said": ("I (MA/cm2),t_ns,P,N\n6,2,0.1,50", {"columns": {"current_a": "I (MA/cm2)"}},
                      "'I .MA/cm2.' hold no known unit of current_a.*Multiply a current density"),
    "widths side by side": ("I_uA,1 ns,2 ns\n60,1,2", {"trials": 50}, "Each row is one setting"),
    "ways side by side": ("I_uA,t_ns,P_P->AP,P_AP->P\n60,2,0,1", {"trials": 5}, "Each row is one"),
    "parts side by side": ("I_uA,t_ns,P_1,P_2\n60,2,0,1", {"trials": 5}, "Each row is one setting"),
    "header of a program": ("Program\t1\nDate\t2\nI\tt\tP\tN\n", {}, "line 3: 4 .*later line has"),
    "preamble of commas": ("a,b,c,d\n" + HEAD + "60,2,0.1,50", {}, "the drive: .*later line has"),
    "other separators": ("I_uA|t_ns|P|N\n60|2|0.1|50", {}, "must separate the cells"),
    "foreign names": ("Strom,Breite,Anteil,Zahl\n1,2,3,4", {}, "and the drive: .*columns="),
    "an archive": ("PK\3\4 no", {}, "unpack an archive|needs openpyxl"),
    "names below": ("Sample,A12\n\n" + HEAD + "60,2,0.1,50", {}, "If a later line has the names"),
    "short row": (HEAD + "60,2,0.1,50\n66,2,0.2", {}, "line 3: 3 values, but .* names 4 columns"),
    "long row": (HEAD + "60,2,0.1,50,7", {}, "line 2: 5 values"),
    "commas for both": (HEAD + "60,0,2,0,1,50", {}, "Decimal commas need ; or tabs"),
    "blank cell": (HEAD + "60,2,,50", {}, "line 2: P = '' is not a number"),
    "text": (HEAD + "60,2,high,50", {}, "line 2: P = 'high' is not a number"),
    "date": (HEAD + "60,2,0.1,2024-01-05", {}, "line 2: N = '2024-01-05' is not a number"),
    "unit in a cell": (HEAD + "60 uA,2,0.1,50", {}, "line 2: I_uA = '60 uA' is not a number"),
    "nan": (HEAD + "60,2,nan,50", {}, "line 2: P = nan is not a finite number"),
    "infinite": (HEAD + "inf,2,0.1,50", {}, "line 2: I_uA = inf is not a finite"),
    "underscore": (HEAD + "60,2,0.1,1_000", {}, "line 2: N = '1_000' is not a number"),
    "thousands": (HEAD + '60,2,0.1,"10,000"', {}, "N = '10,000' may have a mark for thousands"),
    "thousands ;": (HEAD.replace(",", ";") + "60;2;0,1;10,000", {}, "a mark for thousands"),
    "thousands .": (HEAD.replace(",", ";") + "60;2;0,1;10.000", {}, "a mark for thousands"),
    "point and comma": (HEAD.replace(",", ";") + "60;2;0,1;50\n66;2;0.2;50", {}, "a point, while"),
    "share above 1": (HEAD + "60,2,1.2,50", {}, "P = 1.2 is not a probability, 0 to 1"),
    "share below 0": (HEAD + "60,2,-0.1,50", {}, "P = -0.1 is not a probability"),
    "share of no count": (HEAD + "60,2,0.123,50", {}, "P = 0.123 times its trials is not a whole"),
    "part of a trial": (HEAD + "60,2,0.5,50.5", {}, "N = 50.5 is not a whole number >= 1"),
    "no trials": (HEAD + "60,2,0,0", {}, "N = 0 is not a whole number >= 1"),
    "more than all": ("I_uA,t_ns,n_sw,N\n60,2,51,50", {}, "n_sw = 51 exceeds the trials"),
    "shares as counts": ("I_uA,t_ns,n_sw,N\n60,2,0.5,50", {}, "give counts, not fractions"),
    "zero width": (HEAD + "60,0,0.1,50", {}, "t_ns = 0 is not 1e-11 to 1e-2 s"),
    "volts": ("V,t_ns,P,N\n0.5,2,0.1,50", {}, "gives voltages; give the `resistance`"),
    "unknown quantity": (HEAD, {"columns": {"I": "I_uA"}}, "unknown quantity 'I'; the known"),
    "turned mapping": (HEAD, {"columns": {"I_uA": "current_a"}}, "maps quantities to columns"),
    "unknown column": (HEAD, {"columns": {"current_a": "x"}}, r"has no column 'x' \(columns"),
    "unknown unit": (HEAD, {"units": {"I_uA": "furlong"}}, r"= 'furlong' is not one of \["),
    "unit of another": (HEAD, {"columns": {"current": "I_uA"}, "units": {"I_uA": "ns"}},
                        "= 'ns' is not a unit of current_a"),
    "unit of no column": (HEAD, {"units": {"x": "ns"}}, r"has no column 'x' \(units\)"),
    "trials as text": (HEAD + "60,2,0.1,50", {"trials": "many"}, "trials = 'many' is not a number"),
    "width as ns": (HEAD + "60,2,0.1,50", {"pulse_width": 2}, r"pulse_width = 2 s is outside"),
    "ramps, no rate": ("Ic (uA)\n20\n21", {}, "one switching current or voltage per ramp"),
    "ramp of pulses": (HEAD + "60,2,0.1,50", {"ramp": {"rate": 1}}, "has no switching current per"),
    "ramp of what": ("Ic (uA)\n20\n21", {"ramp": {"speed": 1}}, "ramp = .* must be"),
    "few ramps": ("Ic (uA)\n20\n21", {"ramp": {"rate": 1}}, "2 ramps are too few"),
    "equal ramps": ("Ic (uA)\n" + "20\n" * 12, {"ramp": {"rate": 1}}, "All 12 ramps switched at"),
    "ramps down": ("Ic (uA)\n" + "-20\n" * 12, {"ramp": {"rate": 1}}, "Ic .uA. = -20 is not > 0"),
    "sheet of a text": (HEAD, {"sheet": "x"}, "is for workbooks, but lab.csv is a text file"),
    "broken workbook": ("PK\3\4 no", {}, "cannot be read as a workbook|needs openpyxl"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:lab.csv. guessed")
@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_tables_give_one_clear_sentence(tmp_path, name):
    text, options, message = MALFORMED[name]
    with pytest.raises((ValueError, ImportError), match=message) as refusal:
        calibration.read_table(write(tmp_path, text), **options)
    said = str(refusal.value)
    assert "\n" not in said
    assert len(said) < 500


# --- measured files ------------------------------------------------------------------------------


DATA = pathlib.Path(os.environ.get("SPINKERAS_DATA", "data")) / "mtj"


def measured(name):
    path = DATA / name
    if not path.exists():
        pytest.skip(f"needs {name} in the folder mtj of SPINKERAS_DATA")
    return path


def test_perpendicular_junction_from_its_file():
    names = ["voltage_v", "fraction"]
    table = calibration.read_table(
        measured("rehm_fig1b_300K.txt"), 2530.0, columns=names, pulse_width=1e-9, trials=10_000
    )
    fit = calibration.fit_empirical(table)
    spinkeras.SpinNeuron("stt_reference", switching_model=fit.curve)
    assert fit.degrees_of_freedom >= 23
    assert fit.deviance < 36


def test_three_terminal_junctions_from_their_file():
    path = measured("smtj_pbnn_measured_0p75ns.csv")
    with pytest.warns(UserWarning, match="guessed 'V' as voltage in V; 't_p' as pulse_width in s"):
        tables = calibration.read_table(path, 776.0, trials=50, by=["device_id", "direction"])
    fit = calibration.fit_empirical(tables["A", "P->AP"])
    spinkeras.SpinNeuron("vgsot_zhang2020", switching_model=fit.curve)
    assert fit.deviance == pytest.approx(11.2, abs=0.1)
    with pytest.warns(UserWarning, match="The fit does not describe the table"):
        calibration.fit_empirical(tables["A", "AP->P"])
    with pytest.warns(UserWarning, match="^smtj_.*guessed"):
        both = calibration.read_table(path, 776.0, trials=50, where={"device_id": "A"})
    with pytest.warns(UserWarning, match="^AP->P: The fit does not describe the table"):
        fit = calibration.fit_empirical(both, device="vgsot_zhang2020")
    assert fit.deviance == pytest.approx(11.2 + 39.1, abs=0.1)
    assert fit.reset_curve.ceiling == pytest.approx(0.831, abs=1e-3)
    with (
        pytest.warns(UserWarning, match="rows of one setting are not alike .chi-squared 172 on 15"),
        pytest.warns(UserWarning, match="guessed"),
    ):
        calibration.read_table(path, 776.0, trials=50)
