// A network between two TAP devices, in real time:
//
//   link_emulator [--loss=0.02 --delay=10ms ...] TAP1 TAP2
//
// Attaches to both devices (it makes them if they don't exist) and carries frames between them through
// one Emulator each way. Prints "ready" when it carries, ends on SIGTERM or SIGINT with what it counted on
// stderr.
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <string>
#include <vector>

#include "tests/support/emulator.h"

namespace {

using namespace ustack;
using namespace ustack::test;

constexpr const char* kUsage =
    "usage: link_emulator [options] TAP1 TAP2\n"
    "  --loss=P --duplicate=P --corrupt=P --reorder=P   probability per frame: 0.02 or 2%\n"
    "  --reorder-by=TIME --delay=TIME --jitter=TIME     each way: 10ms, 500us\n"
    "  --rate=RATE                                      each way: 100mbit, 1gbit\n"
    "  --queue-bytes=N --queue-frames=N                 before the rate limit: 256k, 100\n"
    "  --seed=N                                         the same seed draws the same lots\n";

int open_tap(const char* name) {
  int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
  ifreq request{};
  std::strncpy(request.ifr_name, name, IFNAMSIZ - 1);
  request.ifr_flags = IFF_TAP | IFF_NO_PI;
  if (fd < 0 || ioctl(fd, TUNSETIFF, &request) < 0) {
    std::fprintf(stderr, "link_emulator: %s: %s\n", name, std::strerror(errno));
    std::exit(1);
  }
  return fd;
}

Instant clock_now() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return Instant(std::chrono::seconds(t.tv_sec) + std::chrono::nanoseconds(t.tv_nsec));
}

void report(const char* direction, const EmulatorCounters& c) {
  std::fprintf(stderr,
               "%s: in %lu out %lu lost %lu duplicated %lu corrupted %lu reordered %lu queue drops %lu\n",
               direction, c.in, c.out, c.lost, c.duplicated, c.corrupted, c.reordered, c.queue_drops);
}

/// Moves what has come in on `from` into the emulator, a bounded number of frames at a time.
void carry(int from, Emulator& emulator) {
  std::byte buffer[65536];
  for (int i = 0; i < 64; ++i) {
    ssize_t n = read(from, buffer, sizeof buffer);
    if (n <= 0) return;
    emulator.input(WireFrame{std::vector<std::byte>(buffer, buffer + n), {}});
  }
}

}  // namespace

int main(int argc, char** argv) {
  Impairments impairments;
  impairments.segment = true;
  uint64_t seed = 1;
  std::vector<const char*> taps;
  try {
    for (int i = 1; i < argc; ++i) {
      std::string argument = argv[i];
      size_t equals = argument.find('=');
      if (argument == "--help") {
        std::fputs(kUsage, stdout);
        return 0;
      }
      if (!argument.starts_with("--"))
        taps.push_back(argv[i]);
      else if (equals == std::string::npos)
        throw std::invalid_argument(argument + " wants a value: " + argument + "=VALUE");
      else if (argument.starts_with("--seed="))
        seed = std::stoull(argument.substr(equals + 1));
      else
        set_impairment(impairments, argument.substr(2, equals - 2), argument.substr(equals + 1));
    }
    if (taps.size() != 2) throw std::invalid_argument("two TAP devices are needed");
  } catch (const std::exception& error) {
    std::fprintf(stderr, "link_emulator: %s\n%s", error.what(), kUsage);
    return 2;
  }

  sigset_t ending;
  sigemptyset(&ending);
  sigaddset(&ending, SIGTERM);
  sigaddset(&ending, SIGINT);
  sigprocmask(SIG_BLOCK, &ending, nullptr);
  int signals = signalfd(-1, &ending, SFD_CLOEXEC);
  int left = open_tap(taps[0]), right = open_tap(taps[1]);

  EventQueue events(clock_now());
  // A full or downed device drops, as a wire would.
  auto writer = [](int fd) {
    return [fd](const WireFrame& frame) { (void)!write(fd, frame.bytes.data(), frame.bytes.size()); };
  };
  Emulator to_right(events, impairments, seed, writer(right));
  Emulator to_left(events, impairments, seed + 1, writer(left));
  std::puts("ready");
  std::fflush(stdout);

  pollfd polled[] = {{left, POLLIN, 0}, {right, POLLIN, 0}, {signals, POLLIN, 0}};
  for (;;) {
    Instant next = events.next();
    timespec wait{}, *timeout = nullptr;
    if (next != kNever) {
      auto left_ns = std::max<int64_t>(0, (next - clock_now()).count());
      wait = {left_ns / 1'000'000'000, left_ns % 1'000'000'000};
      timeout = &wait;
    }
    ppoll(polled, 3, timeout, nullptr);
    if (polled[2].revents != 0) break;
    events.advance_to(clock_now());
    if (polled[0].revents != 0) carry(left, to_right);
    if (polled[1].revents != 0) carry(right, to_left);
    events.advance_to(clock_now());
  }
  report("left to right", to_right.counters());
  report("right to left", to_left.counters());
  return 0;
}
