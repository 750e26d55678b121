// Connections per second: connect, one byte each way, close.
//
//   connection_rate server ADDRESS PORT
//   connection_rate client ADDRESS PORT [--seconds 2] [--parallel 8]
//
// Both ends are epoll loops over non-blocking sockets. The client closes first, so that TIME-WAIT is on its
// side. The server runs until it is ended.
#include "plain_epoll.h"

namespace {

int ask(const plain::Arguments& arguments) {
  const plain::CpuSeconds before = plain::cpu_seconds();
  const plain::Ended ended = plain::short_connections(plain::address_of(arguments.at(1), arguments.at(2)),
                                                      static_cast<size_t>(arguments.number("parallel", 8)),
                                                      arguments.number("seconds", 2));
  const plain::CpuSeconds after = plain::cpu_seconds();
  std::printf(
      "{\"connections\": %llu, \"seconds\": %.3f, \"per_second\": %.0f, \"user_s\": %.3f, "
      "\"system_s\": %.3f}\n",
      static_cast<unsigned long long>(ended.connections), ended.seconds, ended.per_second(),
      after.user - before.user, after.system - before.system);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  plain::Arguments arguments(argc, argv);
  if (arguments.count() == 3 && !std::strcmp(arguments.at(0), "server")) {
    const int listener[] = {plain::listen_on(arguments.at(1), arguments.at(2), 1024, SOCK_NONBLOCK)};
    plain::echo_bytes(listener);
  }
  if (arguments.count() == 3 && !std::strcmp(arguments.at(0), "client")) return ask(arguments);
  std::fprintf(stderr, "usage: connection_rate server|client ADDRESS PORT [options]; see the source\n");
  return 2;
}
