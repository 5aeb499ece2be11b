"""The Debian packages, as a stranger gets them: made by cpack, unpacked into an empty root, and used: the
server is started from there, examples/consumer and the README's C++ blocks are built and run against there.

usage: package_test.py SOURCE_DIR BUILD_DIR
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

SOURCE, BUILD = (pathlib.Path(a) for a in sys.argv[1:3])


def run(*argv, **kwargs):
    result = subprocess.run([str(a) for a in argv], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **kwargs)
    if result.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, argv))} gave {result.returncode}:\n{result.stdout[-8000:]}")
    return result.stdout


class PackageTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.work = pathlib.Path(tempfile.mkdtemp(prefix="conclave-package-"))
        cls.root = cls.work / "root"
        run("cpack", "-G", "DEB", "--config", BUILD / "CPackConfig.cmake", "-B", cls.work / "packages", cwd=cls.work)
        cls.debs = {run("dpkg-deb", "-f", deb, "Package").strip(): deb for deb in (cls.work / "packages").glob("*.deb")}
        for deb in cls.debs.values():
            run("dpkg-deb", "-x", deb, cls.root)
        launcher = shutil.which("ccache")
        cls.cmake_flags = [f"-DCMAKE_PREFIX_PATH={cls.root}/usr", "-DCMAKE_BUILD_TYPE=Release", "-G", "Ninja"]
        if launcher:
            cls.cmake_flags.append(f"-DCMAKE_CXX_COMPILER_LAUNCHER={launcher}")
        cls.environment = dict(os.environ, LD_LIBRARY_PATH=f"{cls.root}/usr/lib", CCACHE_BASEDIR=str(cls.work), CCACHE_NOHASHDIR="1")

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.work)

    def field(self, package, name):
        return run("dpkg-deb", "-f", self.debs[package], name).strip()

    def test_there_are_three_packages_that_name_what_they_need(self):
        self.assertEqual(sorted(self.debs), ["conclave-server", "libconclave-dev", "libconclave1"])
        self.assertIn("libgrpc++1.51", self.field("libconclave1", "Depends"))
        self.assertIn("libnghttp2-14", self.field("conclave-server", "Depends"))
        self.assertNotIn("libconclave1", self.field("conclave-server", "Depends"))
        self.assertIn("libconclave1 (=", self.field("libconclave-dev", "Depends"))

    def test_the_server_runs_and_its_unit_is_sound(self):
        self.assertIn("etcd Version:", run(self.root / "usr/bin/conclave", "--version"))
        unit = (self.root / "usr/lib/systemd/system/conclave.service").read_text()
        self.assertIn("Type=notify", unit)
        if shutil.which("systemd-analyze"):
            text = unit.replace("/usr/bin/conclave", str(self.root / "usr/bin/conclave"))
            path = self.work / "conclave.service"
            path.write_text(re.sub(r"^(User|Group|Documentation)=.*\n", "", text, flags=re.M))
            run("systemd-analyze", "verify", "--man=no", path)

    def test_no_package_names_the_place_where_it_was_built(self):
        for path in self.root.rglob("*"):
            if path.suffix in (".cmake", ".pc", ".h", ".service"):
                self.assertNotIn(str(SOURCE), path.read_text(), path)

    def test_only_the_namespace_of_the_project_is_visible(self):
        # And the protocol's messages, which both libraries share.
        offered = re.compile(r"\b(conclave|authpb|etcdserverpb|mvccpb|v3electionpb|v3lockpb)::")
        for library in ("libconclave.so.1", "libconclave-server.so.1"):
            symbols = run("nm", "-DC", "--defined-only", self.root / "usr/lib" / library).splitlines()
            self.assertGreater(len(symbols), 100)
            self.assertEqual([s for s in symbols if not offered.search(s)], [])

    def test_the_consumer_is_built_and_runs(self):
        source, build = self.work / "consumer", self.work / "consumer/build"
        shutil.copytree(SOURCE / "examples/consumer", source)
        run("cmake", "-S", source, "-B", build, *self.cmake_flags)
        run("cmake", "--build", build, env=self.environment)
        said = run(build / "inventory", env=self.environment)
        self.assertIn("called inventory by its name: 5 bolts", said)
        self.assertRegex(said, r"holds locks/stocktaking, token \d+")
        self.assertRegex(said, r"leads elections/stocktaker, term \d+")

    def test_each_block_of_the_readme_builds_in_an_empty_directory(self):
        blocks = re.findall(r"^```cpp\n(.*?)^```$", (SOURCE / "README.md").read_text(), re.M | re.S)
        self.assertGreater(len(blocks), 3)
        work = self.work / "readme"
        work.mkdir()
        shutil.copy(SOURCE / "examples/greeter.proto", work / "greeter.proto")
        names = []
        for number, block in enumerate(blocks, 1):
            names.append(f"block{number}.cc")
            (work / names[-1]).write_text(block + f"\nnamespace {{ int main_{number}; }}\n")
        (work / "main.cc").write_text("int main() {}\n")
        (work / "CMakeLists.txt").write_text(
            f"""cmake_minimum_required(VERSION 3.25)
project(readme LANGUAGES CXX)
find_package(conclave CONFIG REQUIRED)
find_package(Protobuf REQUIRED)
add_executable(readme main.cc {" ".join(names)} greeter.proto)
protobuf_generate(TARGET readme LANGUAGE cpp)
protobuf_generate(TARGET readme LANGUAGE grpc GENERATE_EXTENSIONS .grpc.pb.h .grpc.pb.cc
  PLUGIN "protoc-gen-grpc=$<TARGET_FILE:gRPC::grpc_cpp_plugin>")
target_include_directories(readme PRIVATE ${{CMAKE_CURRENT_BINARY_DIR}})
target_link_libraries(readme PRIVATE conclave::discovery conclave::lock conclave::election conclave::server
  protobuf::libprotobuf)
"""
        )
        run("cmake", "-S", work, "-B", work / "build", *self.cmake_flags)
        run("cmake", "--build", work / "build", env=self.environment)
        run(work / "build/readme", env=self.environment)

    def test_pkg_config_knows_it(self):
        source = self.work / "pc.cc"
        source.write_text(
            "#include <conclave/client/client.h>\n"
            "int main() { return conclave::Client::Connect({}).ok() ? 1 : 0; }\n"
        )
        environment = dict(self.environment, PKG_CONFIG_PATH=f"{self.root}/usr/lib/pkgconfig")
        flags = run("pkg-config", f"--define-variable=prefix={self.root}/usr", "--cflags", "--libs", "conclave",
                    env=environment).split()
        run("g++", source, *flags, "-o", self.work / "pc")
        run(self.work / "pc", env=self.environment)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
