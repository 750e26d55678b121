// TAP links, and what opening one can say.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/if_tun.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <memory>
#include <thread>

#include "io/clock.h"
#include "io/config.h"
#include "io/link.h"
#include "io/netlink.h"
#include "io/virtio_header.h"
#include "stack/base/checksum.h"
#include "tests/support/heap_arena.h"
#include "tests/support/private_network.h"

namespace ustack::io {
namespace {

using testing::HasSubstr;

std::string message_of(const std::optional<OpenError>& problem) { return problem ? problem->message : ""; }

#define ASSERT_FINE(expression) ASSERT_EQ(message_of(expression), "")

/// Opens a TAP, gives its kernel's side 192.0.2.1/24 and brings it up.
void open_ready_tap(Link* link) {
  ASSERT_FINE(open_tun_device("tap0", true, link));
  std::unique_ptr<Netlink> netlink;
  ASSERT_FINE(Netlink::open(&netlink));
  ASSERT_FINE(netlink->add_address("tap0", {IpAddress::v4(192, 0, 2, 1), 24}));
  ASSERT_FINE(netlink->set_up("tap0"));
  ASSERT_FINE(netlink->wait_until_up("tap0", 5000));
}

/// The next frame with this EtherType; empty after five seconds without one.
std::vector<std::byte> next_frame(Link& link, uint16_t ether_type, Offload* offload) {
  Instant give_up = now() + 5s;
  std::vector<std::byte> buffer(70000);
  while (now() < give_up) {
    pollfd fd{link.fd(), POLLIN, 0};
    poll(&fd, 1, 100);
    ssize_t got = read(link.fd(), buffer.data(), buffer.size());
    if (got < static_cast<ssize_t>(link.prefix_length()) + 14) continue;
    auto length = static_cast<uint32_t>(got) - link.prefix_length();
    const std::byte* frame = buffer.data() + link.prefix_length();
    EXPECT_TRUE(link.decode(buffer.data(), length, offload));
    if (load_be16(frame + 12) == ether_type) return {frame, frame + length};
  }
  return {};
}

void send_udp(const char* destination, size_t bytes) {
  int fd = socket(AF_INET, SOCK_DGRAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(9);
  std::memcpy(&address.sin_addr, parse_address(destination)->data(), 4);
  std::string payload(bytes, 'u');
  sendto(fd, payload.data(), payload.size(), 0, reinterpret_cast<sockaddr*>(&address), sizeof address);
  close(fd);
}

TEST(Tap, ReadsAndWritesFramesOfTheKernel) {
  test::in_private_network([] {
    if (access("/dev/net/tun", R_OK | W_OK) != 0) GTEST_SKIP();
    Link link;
    open_ready_tap(&link);
    EXPECT_EQ(link.name(), "tap0");
    EXPECT_EQ(link.info().kind, LinkInfo::Kind::ethernet);
    EXPECT_EQ(link.info().mtu, 1500);
    EXPECT_TRUE(link.info().checksum_offload);
    EXPECT_TRUE(link.info().tcp_segmentation_v4);
    EXPECT_EQ(link.prefix_length(), Link::kVirtioHeader);
    EXPECT_FALSE(link.is_socket());

    // The kernel asks who has 192.0.2.2, we answer, and its datagram comes.
    send_udp("192.0.2.2", 100);
    Offload offload;
    std::vector<std::byte> request = next_frame(link, 0x0806, &offload);
    ASSERT_GE(request.size(), 42u);
    EXPECT_EQ(load_be32(request.data() + 38), 0xc0000202);

    test::HeapArena arena;
    FramePool frames(arena);
    TxFrame* reply = frames.allocate();
    MacAddress mac = *parse_mac("02:00:00:00:00:02");
    std::byte* arp = reply->prepend(42);
    std::memcpy(arp, request.data() + 6, 6);
    std::memcpy(arp + 6, mac.bytes.data(), 6);
    std::memcpy(arp + 12, request.data() + 12, 8);
    store_be16(arp + 20, 2);
    std::memcpy(arp + 22, mac.bytes.data(), 6);
    store_be32(arp + 28, 0xc0000202);
    std::memcpy(arp + 32, request.data() + 22, 10);
    Bytes head = link.encode(*reply);
    ASSERT_EQ(head.size(), 52u);
    ASSERT_EQ(write(link.fd(), head.data(), head.size()), 52);
    frames.release(reply);

    std::vector<std::byte> datagram = next_frame(link, 0x0800, &offload);
    ASSERT_EQ(datagram.size(), 14u + 20 + 8 + 100);
    EXPECT_EQ(std::memcmp(datagram.data(), mac.bytes.data(), 6), 0);
    EXPECT_TRUE(offload.partial_checksum) << "checksums are left to us";
    EXPECT_EQ(offload.checksum_start, 34);
    EXPECT_EQ(offload.checksum_offset, 6);
  });
}

TEST(Tap, TheKernelNamesAndTellsWhetherItWasMade) {
  test::in_private_network([] {
    if (access("/dev/net/tun", R_OK | W_OK) != 0) GTEST_SKIP();
    Link first, second;
    bool created = false;
    ASSERT_FINE(open_link(LinkSpec{}, &first, &created));
    EXPECT_EQ(first.name(), "ustack0");
    EXPECT_TRUE(created);
    ASSERT_FINE(open_link(LinkSpec{}, &second, &created));
    EXPECT_EQ(second.name(), "ustack1");
  });
}

TEST(Tap, ADeviceInUseIsAClearError) {
  test::in_private_network([] {
    if (access("/dev/net/tun", R_OK | W_OK) != 0) GTEST_SKIP();
    Link link, second;
    ASSERT_FINE(open_tun_device("tap0", true, &link));
    Instant begin = now();
    auto problem = open_tun_device("tap0", true, &second);
    ASSERT_TRUE(problem);
    EXPECT_EQ(problem->code, EBUSY);
    EXPECT_THAT(problem->message, HasSubstr("tap0 is in use by another program"));
    EXPECT_GE(now() - begin, 90ms) << "a device may be busy for a moment after its last user has gone";
    EXPECT_EQ(second.fd(), -1);
  });
}

TEST(Tap, ADeviceWithSeveralQueuesHasOneProgram) {
  test::in_private_network([] {
    if (access("/dev/net/tun", R_OK | W_OK) != 0) GTEST_SKIP();
    if (system("ip tuntap add dev tap0 mode tap multi_queue vnet_hdr") != 0) GTEST_SKIP() << "no ip(8)";
    for (uint32_t queues : {2u, 1u, Link::kMaxQueues}) {
      Link link, second;
      ASSERT_FINE(open_tun_device("tap0", true, &link, nullptr, queues));
      EXPECT_EQ(link.queues(), queues);
      for (const Descriptor& queue : link.descriptors()) EXPECT_TRUE(queue);
      // The kernel would let it.
      auto problem = open_tun_device("tap0", true, &second, nullptr, 1);
      ASSERT_TRUE(problem);
      EXPECT_EQ(problem->code, EBUSY);
      EXPECT_THAT(problem->message, HasSubstr("tap0 is in use by another program"));
      EXPECT_EQ(second.fd(), -1);
    }
    Link plain;
    ASSERT_FINE(open_tun_device("tap1", true, &plain));
    auto problem = open_tun_device("tap1", true, &plain, nullptr, 2);
    ASSERT_TRUE(problem);
    EXPECT_THAT(problem->message, HasSubstr("multi_queue"));
  });
}

/// By which queue the next frame with TCP comes; nothing: none within five seconds.
std::optional<uint32_t> queue_of_next_tcp_frame(Link& link) {
  for (Instant give_up = now() + 5s; now() < give_up;) {
    std::array<unsigned char, 2048> frame;
    for (uint32_t queue = 0; queue < link.queues(); ++queue) {
      const ssize_t n = read(link.fd(queue), frame.data(), frame.size());
      if (n >= 64 && frame[22] == 8 && frame[23] == 0 && frame[33] == 6) return queue;
    }
  }
  return std::nullopt;
}

TEST(Tap, WhatLeavesByAQueueIsAnsweredByIt) {
  test::in_private_network([] {
    if (access("/dev/net/tun", R_OK | W_OK) != 0) GTEST_SKIP();
    Link link;
    ASSERT_FINE(open_tun_device("tap0", true, &link, nullptr, 3));
    std::unique_ptr<Netlink> netlink;
    ASSERT_FINE(Netlink::open(&netlink));
    ASSERT_FINE(netlink->add_address("tap0", {IpAddress::v4(192, 0, 2, 1), 24}));
    ASSERT_FINE(netlink->set_up("tap0"));
    ASSERT_FINE(netlink->wait_until_up("tap0", 5000));
    Netlink::LinkState state;
    ASSERT_FINE(netlink->get_link("tap0", &state));

    // A SYN from 192.0.2.2 to a port that nobody has: the kernel answers with a reset, once it has our MAC
    // address from an ARP reply.
    const unsigned char arp[52] = {
        0,    0,    0,    0,    0,    0,    0, 0, 0, 0,                // virtio
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0,   2, 8, 6,  // Ethernet
        0,    1,    8,    0,    6,    4,    0, 1, 2, 0, 0,   0, 0, 2,  // ARP request
        192,  0,    2,    2,    0,    0,    0, 0, 0, 0, 192, 0, 2, 1};
    ASSERT_EQ(write(link.fd(0), arp, sizeof arp), 52);
    for (uint32_t queue : {2u, 0u, 1u, 2u}) {
      unsigned char syn[64] = {1, 0,  0, 0,  0,
                               0, 34, 0, 16, 0};  // virtio: the checksum is left to be completed
      std::memcpy(syn + 10, state.mac.bytes.data(), 6);
      const unsigned char rest[48] = {2,  0, 0, 0, 0,   2, 8, 0, 0x45, 0, 0,    40,   0,    0,    0x40, 0,
                                      64, 6, 0, 0, 192, 0, 2, 2, 192,  0, 2,    1,    0x9c, 0x40, 0,    9,
                                      0,  0, 0, 1, 0,   0, 0, 0, 0x50, 2, 0xff, 0xff, 0,    0,    0,    0};
      std::memcpy(syn + 16, rest, sizeof rest);
      const uint16_t header = checksum_of({reinterpret_cast<std::byte*>(syn) + 24, 20});
      store_be16(reinterpret_cast<std::byte*>(syn) + 34, header);
      // The pseudo-header's sum: addresses, protocol, length.
      const uint32_t sum = 0xc000 + 0x0202 + 0xc000 + 0x0201 + 6 + 20;
      store_be16(reinterpret_cast<std::byte*>(syn) + 60, static_cast<uint16_t>((sum & 0xffff) + (sum >> 16)));
      // The kernel notes the queue once it has handled the frame: the answer to the first one may still come
      // by another.
      std::optional<uint32_t> by;
      for (int i = 0; i < 2; ++i) {
        ASSERT_EQ(write(link.fd(queue), syn, sizeof syn), 64);
        by = queue_of_next_tcp_frame(link);
        ASSERT_TRUE(by) << "no reset";
      }
      EXPECT_EQ(*by, queue);
    }
  });
}

TEST(Tap, ABusyDeviceIsTriedAgain) {
  test::in_private_network([] {
    if (access("/dev/net/tun", R_OK | W_OK) != 0) GTEST_SKIP();
    Link link;
    ASSERT_FINE(open_tun_device("tap0", true, &link));
    std::thread closer([&] {
      usleep(20'000);
      link = Link();
    });
    Link second;
    auto problem = open_tun_device("tap0", true, &second);
    closer.join();
    ASSERT_FINE(problem);
  });
}

TEST(Tap, AnotherKindOfDeviceIsAClearError) {
  test::in_private_network([] {
    if (access("/dev/net/tun", R_OK | W_OK) != 0) GTEST_SKIP();
    Link tun, tap;
    ASSERT_FINE(open_tun_device("dev0", false, &tun));
    auto problem = open_tun_device("dev0", true, &tap);
    ASSERT_TRUE(problem);
    EXPECT_EQ(problem->code, EINVAL);
    EXPECT_THAT(problem->message, HasSubstr("dev0 exists but can't be used as a tap device"));
    problem = open_tun_device("lo", true, &tap);
    ASSERT_TRUE(problem);
    EXPECT_THAT(problem->message, HasSubstr("lo exists but can't be used"));
  });
}

/// An empty /dev/net of this process's own. False: can't be made here.
bool private_device_directory() {
  return unshare(CLONE_NEWNS) == 0 && mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
         mount("tmpfs", "/dev/net", "tmpfs", 0, nullptr) == 0;
}
/// The same with a /dev/net/tun.
bool private_tun_device(mode_t mode) {
  return private_device_directory() && mknod("/dev/net/tun", S_IFCHR | 0600, 10 << 8 | 200) == 0 &&
         chmod("/dev/net/tun", mode) == 0;
}

TEST(Tap, OnlyADeviceThatWasGivenAwayNeedsNoRights) {
  test::in_private_network([] {
    const auto needs = [](LinkSpec::Scheme scheme, const char* name) {
      LinkSpec spec;
      spec.scheme = scheme;
      spec.name = name;
      return needs_rights(spec);
    };
    using Scheme = LinkSpec::Scheme;
    if (getuid() != 0 || !private_tun_device(0666)) GTEST_SKIP();
    Link nobodys, users, groups;
    ASSERT_FINE(open_tun_device("nobodys0", true, &nobodys));
    ASSERT_FINE(open_tun_device("users0", false, &users));
    ASSERT_EQ(ioctl(users.descriptors()[0].get(), TUNSETOWNER, 65534), 0);
    ASSERT_FINE(open_tun_device("groups0", true, &groups));
    ASSERT_EQ(ioctl(groups.descriptors()[0].get(), TUNSETGROUP, 65534), 0);
    EXPECT_TRUE(needs(Scheme::tap, "nobodys0"));
    EXPECT_FALSE(needs(Scheme::tun, "users0"));
    EXPECT_FALSE(needs(Scheme::tap, "groups0"));
    EXPECT_TRUE(needs(Scheme::tap, "lo"));
    EXPECT_TRUE(needs(Scheme::tap, "missing0"));
    EXPECT_TRUE(needs(Scheme::tap, "a_name_that_is_too_long_for_a_device"));
    EXPECT_TRUE(needs(Scheme::automatic, ""));
    EXPECT_TRUE(needs(Scheme::packet, "lo"));
    EXPECT_FALSE(needs(Scheme::fd, ""));
    // Who can't open the driver's node can open none of its devices.
    ASSERT_EQ(chmod("/dev/net/tun", 0600), 0);
    EXPECT_TRUE(needs(Scheme::tun, "users0"));
  });
}

TEST(Tap, AMissingRightIsNamedWithTheWaysToGetIt) {
  test::in_private_network([] {
    if (access("/dev/net/tun", R_OK | W_OK) != 0 || getuid() != 0) GTEST_SKIP();
    // Keep /dev/net/tun accessible, whatever its mode here, but no right in this namespace.
    if (!private_tun_device(0666)) GTEST_SKIP();
    if (setresgid(65534, 65534, 65534) != 0 || setresuid(65534, 65534, 65534) != 0) GTEST_SKIP();
    Link link;
    auto problem = open_tun_device("tap0", true, &link);
    ASSERT_TRUE(problem);
    EXPECT_EQ(problem->code, EPERM);
    EXPECT_THAT(problem->message, HasSubstr("CAP_NET_ADMIN is missing"));
    EXPECT_THAT(problem->message, HasSubstr("unshare -Urn"));
    EXPECT_THAT(problem->message, HasSubstr("ip tuntap add dev tap0 mode tap user 65534"));
    problem = open_link(LinkSpec{}, &link);
    ASSERT_TRUE(problem);
    EXPECT_THAT(problem->message, HasSubstr("set USTACK_LINK=tap:tap0"));
  });
}

TEST(Tap, AMissingOrForbiddenTunDeviceIsAClearError) {
  test::in_private_network([] {
    if (getuid() != 0 || access("/dev/net", F_OK) != 0) GTEST_SKIP();
    if (!private_device_directory()) GTEST_SKIP();
    Link link;
    auto problem = open_tun_device("tap0", true, &link);
    ASSERT_TRUE(problem);
    EXPECT_EQ(problem->code, ENOENT);
    EXPECT_THAT(problem->message, HasSubstr("/dev/net/tun"));
    EXPECT_THAT(problem->message, HasSubstr("modprobe tun"));

    if (mknod("/dev/net/tun", S_IFCHR | 0600, 10 << 8 | 200) != 0) GTEST_SKIP();
    if (setresgid(65534, 65534, 65534) != 0 || setresuid(65534, 65534, 65534) != 0) GTEST_SKIP();
    problem = open_tun_device("tap0", true, &link);
    ASSERT_TRUE(problem);
    EXPECT_EQ(problem->code, EACCES);
    EXPECT_THAT(problem->message, HasSubstr("permission denied"));
  });
}

TEST(Tap, NamesAreCheckedBeforeTheKernelCutsThem) {
  Link link;
  for (const char* name : {"", "0123456789abcdef", "a/b", "a b", "..", "a:b"}) {
    auto problem = open_tun_device(name, true, &link);
    ASSERT_TRUE(problem) << name;
    EXPECT_EQ(problem->code, EINVAL);
    EXPECT_THAT(problem->message, HasSubstr("can't be a device's name"));
  }
}

// Framing, without a device.

Link virtio_link() { return Link(Descriptor(), LinkInfo{}, Link::kVirtioHeader, false, "test"); }

bool decode(const VirtioHeader& header, uint32_t length, Offload* out) {
  Link link = virtio_link();
  return link.decode(reinterpret_cast<const std::byte*>(&header), length, out);
}

TEST(Framing, DecodesWhatTheKernelSays) {
  Offload offload;
  VirtioHeader header{};
  ASSERT_TRUE(decode(header, 60, &offload));
  EXPECT_FALSE(offload.partial_checksum);
  EXPECT_FALSE(offload.checksum_valid);
  EXPECT_EQ(offload.segmentation, Offload::Segmentation::none);

  header = {VirtioHeader::kDataValid, 0, 0, 0, 0, 0};
  ASSERT_TRUE(decode(header, 60, &offload));
  EXPECT_TRUE(offload.checksum_valid);

  header = {VirtioHeader::kNeedsChecksum, VirtioHeader::kGsoTcpV4 | VirtioHeader::kGsoEcn, 66, 1448, 34, 16};
  ASSERT_TRUE(decode(header, 30000, &offload));
  EXPECT_TRUE(offload.partial_checksum);
  EXPECT_EQ(offload.checksum_start, 34);
  EXPECT_EQ(offload.checksum_offset, 16);
  EXPECT_EQ(offload.segmentation, Offload::Segmentation::tcp_v4);
  EXPECT_TRUE(offload.ecn);
  EXPECT_EQ(offload.segment_size, 1448);
  header.gso_type = VirtioHeader::kGsoTcpV6;
  ASSERT_TRUE(decode(header, 30000, &offload));
  EXPECT_EQ(offload.segmentation, Offload::Segmentation::tcp_v6);
}

TEST(Framing, RefusesWhatContradictsTheFrame) {
  Offload offload;
  EXPECT_TRUE(decode({VirtioHeader::kNeedsChecksum, 0, 0, 0, 34, 16}, 52, &offload));
  EXPECT_FALSE(decode({VirtioHeader::kNeedsChecksum, 0, 0, 0, 34, 16}, 51, &offload))
      << "checksum behind the end";
  EXPECT_FALSE(decode({VirtioHeader::kNeedsChecksum, 0, 0, 0, 65535, 65535}, 60, &offload));
  EXPECT_FALSE(decode({0, VirtioHeader::kGsoTcpV4, 54, 0, 0, 0}, 3000, &offload)) << "segments of no size";
  EXPECT_FALSE(decode({0, VirtioHeader::kGsoTcpV4, 3001, 1448, 0, 0}, 3000, &offload))
      << "headers behind the end";
  for (int type : {2, 3, 5, 6, 0x7f})
    EXPECT_FALSE(decode({0, static_cast<uint8_t>(type), 54, 1448, 0, 0}, 3000, &offload)) << type;
}

TEST(Framing, EncodesInFrontOfTheHeaderAndTwiceTheSame) {
  Link link = virtio_link();
  test::HeapArena arena;
  FramePool frames(arena);
  TxFrame* frame = frames.allocate();
  std::memset(frame->prepend(54), 0xaa, 54);
  frame->offload.partial_checksum = true;
  frame->offload.checksum_start = 34;
  frame->offload.checksum_offset = 16;
  frame->offload.segmentation = Offload::Segmentation::tcp_v4;
  frame->offload.segment_size = 1460;
  frame->offload.header_length = 54;
  for (int time = 0; time < 2; ++time) {
    Bytes head = link.encode(*frame);
    ASSERT_EQ(head.size(), 64u);
    EXPECT_EQ(frame->header().size(), 54u) << "the frame itself stays as it is";
    EXPECT_EQ(head.data() + 10, frame->header().data());
    Offload back;
    ASSERT_TRUE(link.decode(head.data(), 3000, &back));
    EXPECT_TRUE(back.partial_checksum);
    EXPECT_EQ(back.checksum_start, 34);
    EXPECT_EQ(back.checksum_offset, 16);
    EXPECT_EQ(back.segmentation, Offload::Segmentation::tcp_v4);
    EXPECT_EQ(back.segment_size, 1460);
    EXPECT_EQ(back.header_length, 54);
  }
  std::memset(frame->prepend(TxFrame::kHeaderRoom - 54 - 9), 0, 1);
  EXPECT_TRUE(link.encode(*frame).empty()) << "no room for the prefix";
  frames.release(frame);
}

TEST(Framing, LinksWithoutAPrefixAddNothing) {
  Link link(Descriptor(), LinkInfo{}, 0, true, "fd:3");
  test::HeapArena arena;
  FramePool frames(arena);
  TxFrame* frame = frames.allocate();
  frame->prepend(42);
  EXPECT_EQ(link.encode(*frame).size(), 42u);
  Offload offload;
  EXPECT_TRUE(link.decode(nullptr, 42, &offload));
  frames.release(frame);
}

TEST(Framing, TheIpHeaderIsAligned) {
  for (LinkInfo::Kind kind : {LinkInfo::Kind::ethernet, LinkInfo::Kind::ip}) {
    for (uint32_t prefix : {0u, Link::kVirtioHeader}) {
      LinkInfo info;
      info.kind = kind;
      Link link(Descriptor(), info, prefix, false, "x");
      uint32_t ip = link.read_padding() + prefix + (kind == LinkInfo::Kind::ethernet ? 14 : 0);
      EXPECT_EQ(ip % 4, 0u);
    }
  }
}

}  // namespace
}  // namespace ustack::io
