"""Tests that run on this machine, without WebAssembly: python3 -m unittest"""

import unittest

import ocm_plugin
from plugin import @TYPE@


class @TYPE@Test(unittest.TestCase):
    def test_words_are_replaced_however_the_bytes_arrive(self):
        for chunk in [1, 7, 4096]:
            _, contents = ocm_plugin.run(@TYPE@, {"word": "old", "by": "new"}, {"data": b"an old\nold hat"}, chunk=chunk)
            self.assertEqual(contents["data"], b"an new\nnew hat")

    def test_what_is_no_word_is_refused(self):
        with self.assertRaises(ocm_plugin.Error) as raised:
            ocm_plugin.run(@TYPE@, {"word": "", "by": "new"}, {"data": b""})
        self.assertEqual(raised.exception.field, "/word")


if __name__ == "__main__":
    unittest.main()
