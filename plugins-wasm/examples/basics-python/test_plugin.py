"""The example on this machine, without WebAssembly; the kit is found by PYTHONPATH."""

import unittest

import ocm_plugin
from plugin import Broken, Count, Identity, Rot13, Split

DATA = b"Hello, World\n" * 100


class BasicsTest(unittest.TestCase):
    def test_bytes_come_out_as_they_should_in_any_chunks(self):
        for chunk in [1, 7, 4096]:
            run = lambda *of, **how: ocm_plugin.run(*of, chunk=chunk, **how)
            for way in ["same", "splice", "copy"]:
                _, same = run(Identity, {"way": way}, {"data": DATA})
                self.assertEqual(same["data"], DATA)
            _, once = run(Rot13, {}, {"data": DATA})
            _, twice = run(Rot13, {}, once)
            self.assertNotEqual(once["data"], DATA)
            self.assertEqual(twice["data"], DATA)
            counted, same = run(Count, {}, {"data": DATA})
            self.assertEqual((counted, same["data"]), ({"bytes": 1300, "lines": 100}, DATA))
            _, split = run(Split, {"at": 10}, {"data": DATA})
            self.assertEqual((split["head"], split["tail"]), (DATA[:10], DATA[10:]))

    def test_bytes_that_were_looked_at_are_passed_on_too(self):
        class Second(Identity):
            def transform(self, step, source, sink):
                source.readline()
                sink.pass_on(source)

        for chunk in [1, 7, 4096]:
            _, rest = ocm_plugin.run(Second, {}, {"data": b"a\nb\nc"}, chunk=chunk)
            self.assertEqual(rest["data"], b"b\nc")

    def test_what_makes_no_sense_is_refused_with_its_place(self):
        with self.assertRaises(ocm_plugin.Error) as raised:
            ocm_plugin.run(Split, {"at": 0}, {"data": b"x"})
        self.assertEqual(raised.exception.field, "/at")
        with self.assertRaises(ocm_plugin.Error) as raised:
            ocm_plugin.run(Split, {"at": 9}, {"data": b"x"})
        self.assertEqual((raised.exception.port, raised.exception.offset), ("data", 1))
        with self.assertRaises(KeyError):
            ocm_plugin.run(Broken, {}, {"data": b"x"})


if __name__ == "__main__":
    unittest.main()
