import itertools

from hypothesis import given
from hypothesis import strategies as st

from patchpad.pages.point_labels import Placed, Wish, distance, end_labels, overlap, place_labels

SPOTS = st.tuples(st.integers(30, 570).map(float), st.integers(30, 270).map(float))
ROOM = (0.0, 0.0, 700.0, 300.0)


@given(st.lists(st.tuples(SPOTS, st.text("ab", min_size=1, max_size=14)), min_size=1, max_size=12))
def test_a_label_is_nearer_to_its_own_mark_than_to_any_other_and_covers_no_label_and_no_mark(wanted):
    wishes = [Wish(text, mark) for mark, text in wanted]
    marks = [wish.mark for wish in wishes]
    placed = [one for one in place_labels(wishes, marks, [marks], ROOM) if one is not None]
    assert placed
    for number, one in enumerate(placed):
        others = [mark for mark in marks if mark != one.mark]
        assert all(distance(one.box, one.mark) < distance(one.box, mark) for mark in others)
        assert all(distance(one.box, mark) > 0 for mark in marks)
        assert not any(overlap(one.box, other.box) for other in placed[number + 1 :])
        assert ROOM[0] <= one.box[0] < one.box[2] <= ROOM[2]


def test_labels_of_marks_far_apart_are_all_placed_up_and_to_the_right():
    marks = [(100.0, 100.0), (400.0, 200.0)]
    placed = place_labels([Wish("one", marks[0]), Wish("two", marks[1])], marks, [], ROOM)
    assert [one.box[0] > one.mark[0] and one.box[3] < one.mark[1] for one in placed if one] == [True, True]


def test_a_label_that_has_no_place_is_left_out():
    mark = (20.0, 20.0)
    assert place_labels([Wish("far too long for this room", mark)], [mark], [], (0.0, 0.0, 60.0, 40.0)) == [None]


def test_a_label_far_from_its_mark_has_a_line_to_it():
    mark, taken = (200.0, 100.0), (120.0, 85.0, 280.0, 115.0)
    (placed,) = place_labels([Wish("name", mark)], [mark], [], ROOM, [taken])
    assert placed is not None
    assert distance(placed.box, mark) >= 15
    assert placed.leader is not None
    assert distance(placed.box, placed.leader[1]) == 0
    (near,) = place_labels([Wish("name", mark)], [mark], [], ROOM)
    assert near is not None
    assert near.leader is None


@given(st.lists(st.floats(20, 280), min_size=1, max_size=10))
def test_names_of_lines_stand_below_one_another_in_the_order_of_the_ends(heights):
    wishes = [Wish(str(number), (500.0, height)) for number, height in enumerate(heights)]
    placed = end_labels(wishes, 516.0, 20.0, 280.0)
    order = sorted(range(len(heights)), key=lambda index: (heights[index], index))
    tops = [placed[index].box[1] for index in order]
    assert tops == sorted(tops)
    assert all(later - earlier > 14 for earlier, later in itertools.pairwise(tops))
    assert all(one.leader is not None and one.leader[0] == one.mark for one in placed)


def test_a_text_begins_at_the_side_of_its_box_that_faces_the_mark():
    assert Placed("x", (10.0, 10.0), (20.0, 0.0, 40.0, 10.0)).start == (20.0, "start")
    assert Placed("x", (50.0, 10.0), (20.0, 0.0, 40.0, 10.0)).start == (40.0, "end")
    assert Placed("x", (30.0, 20.0), (20.0, 0.0, 40.0, 10.0)).start == (30.0, "middle")
