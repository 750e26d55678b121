"""Libraries that a program opens (dlopen(3)): with RTLD_DEEPBIND they are bound past what is preloaded, but for us."""

import pathlib

from harness import Context, case, equal

PYTHON = "/usr/bin/python3"
PORT = 8081

# A library by which a program gets what the peer sends it: by calls, or by a pointer that the linker fills in.
PLUGIN = """
#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>
int (*const by_pointer)(int, const struct sockaddr*, socklen_t) = connect;
int answer(const char* peer, int pointer, char* to, int bytes) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(PORT)};
  inet_pton(AF_INET, peer, &address.sin_addr);
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  int failed = (pointer ? by_pointer : connect)(fd, (struct sockaddr*)&address, sizeof address);
  int got = failed ? -1 : recv(fd, to, bytes, 0);
  close(fd);
  return got;
}
"""
# PEER LIBRARY FLAGS: opens the library and has it ask, by a call and by the pointer.
PROGRAM = """
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
int main(int count, char** words) {
  void* plugin = dlopen(words[2], atoi(words[3]));
  if (!plugin) return puts(dlerror()), 1;
  int (*answer)(const char*, int, char*, int) = (int (*)(const char*, int, char*, int))dlsym(plugin, "answer");
  for (int pointer = 0; pointer < 2; ++pointer) {
    char text[100];
    int got = answer(words[1], pointer, text, sizeof text);
    printf("%.*s\\n", got > 0 ? got : 0, text);
  }
  return 0;
}
"""
RTLD_LAZY, RTLD_NOW, RTLD_DEEPBIND = 1, 2, 8


def build(context: Context) -> tuple[pathlib.Path, dict[str, pathlib.Path]]:
    """The program, and libraries that are bound when they are called, at once, and at once and for good."""
    kinds = {"lazy": ["-Wl,-z,lazy"], "now": ["-Wl,-z,now", "-Wl,-z,norelro"], "relro": ["-Wl,-z,now", "-Wl,-z,relro"]}
    plugins = {name: context.compile(f"lib{name}.so", PLUGIN.replace("PORT", str(PORT)), "-shared", "-fPIC", *flags)
               for name, flags in kinds.items()}
    return context.compile("program", PROGRAM, f"-Wl,-rpath,{context.directory}"), plugins


@case("dlopen.deep_binding")
def deep_binding(context: Context):
    """What such a library sends goes by the host too, however it is bound; one found by the program's RUNPATH is found."""
    lab = context.lab()
    program, plugins = build(context)
    # The peer tells each who it is.
    lab.peer(PYTHON, "-c", f"import socket, sys\nlistener = socket.create_server((sys.argv[1], {PORT}))\n"
             "print('listening', flush=True)\nwhile True:\n    link, who = listener.accept()\n"
             "    link.sendall(who[0].encode()); link.close()", lab.peer_address, label="peer").wait_for_output("listening")
    for name, plugin in plugins.items():
        for flags in (RTLD_LAZY | RTLD_DEEPBIND, RTLD_NOW | RTLD_DEEPBIND, RTLD_NOW):
            done = lab.host(program, lab.peer_address, plugin, flags, label=f"{name}-{flags}").ok(20)
            equal(done.stdout.split(), [lab.host_address()] * 2, f"who asked, {name}, flags {flags}")
    done = lab.host(program, lab.peer_address, "libnow.so", RTLD_NOW, label="runpath").ok(20)
    equal(done.stdout.split(), [lab.host_address()] * 2, "who asked, a library found by RUNPATH")
