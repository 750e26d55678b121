#include "io/capture.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <ctime>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "io/clock.h"
#include "stack/base/checksum.h"
#include "tests/support/heap_arena.h"

namespace ustack::io {
namespace {

/// A block of a pcapng file, as draft-ietf-opsawg-pcapng has it.
struct PcapngBlock {
  uint32_t type;
  std::string body;
};

uint32_t u32(const std::string& text, size_t at) {
  uint32_t value = 0;
  if (at + 4 > text.size()) {
    ADD_FAILURE() << "the block is too short";
    return 0;
  }
  std::memcpy(&value, text.data() + at, 4);
  return value;
}

std::vector<PcapngBlock> read_blocks(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string all{std::istreambuf_iterator<char>(file), {}};
  std::vector<PcapngBlock> blocks;
  for (size_t at = 0; at < all.size();) {
    uint32_t type = u32(all, at), length = u32(all, at + 4);
    EXPECT_EQ(length % 4, 0u);
    if (length < 12 || at + length > all.size() || u32(all, at + length - 4) != length) {
      ADD_FAILURE() << "bad block at " << at;
      break;
    }
    blocks.push_back({type, all.substr(at + 8, length - 12)});
    at += length;
  }
  return blocks;
}

struct CapturedPacket {
  uint64_t nanoseconds;
  std::string frame;
  uint32_t flags;
};

CapturedPacket packet_of(const PcapngBlock& block) {
  EXPECT_EQ(block.type, 6u);
  EXPECT_EQ(u32(block.body, 0), 0u);
  uint32_t captured = u32(block.body, 12), original = u32(block.body, 16);
  EXPECT_EQ(captured, original);
  CapturedPacket packet;
  packet.nanoseconds = uint64_t{u32(block.body, 4)} << 32 | u32(block.body, 8);
  packet.frame = block.body.substr(20, captured);
  size_t options = 20 + (captured + 3) / 4 * 4;
  EXPECT_EQ(u32(block.body, options), 4u << 16 | 2u);  // epb_flags, four bytes
  packet.flags = u32(block.body, options + 4);
  EXPECT_EQ(u32(block.body, options + 8), 0u);
  EXPECT_EQ(block.body.size(), options + 12);
  return packet;
}

class CaptureTest : public testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/ustack-capture-XXXXXX";
    close(mkstemp(name));
    path_ = name;
  }
  void TearDown() override { unlink(path_.c_str()); }

  Capture* open(LinkInfo::Kind kind = LinkInfo::Kind::ethernet) {
    LinkInfo info;
    info.kind = kind;
    Capture* capture = nullptr;
    auto problem = Capture::open(path_, info, &capture);
    EXPECT_EQ(problem ? problem->message : "", "");
    return capture;
  }
  Slice slice(const std::string& bytes) {
    Slice made{blocks_.allocate(static_cast<uint32_t>(bytes.size())), 0, static_cast<uint32_t>(bytes.size())};
    std::memcpy(made.data(), bytes.data(), bytes.size());
    return made;
  }

  std::string path_;
  test::HeapArena arena_;
  BlockPool blocks_{arena_};
  FramePool frames_{arena_};
};

TEST_F(CaptureTest, BeginsWithSectionAndInterface) {
  Capture::close(open());
  auto blocks = read_blocks(path_);
  ASSERT_EQ(blocks.size(), 2u);
  EXPECT_EQ(blocks[0].type, 0x0a0d0d0au);
  EXPECT_EQ(u32(blocks[0].body, 0), 0x1a2b3c4du);
  EXPECT_EQ(u32(blocks[0].body, 4), 1u);  // version 1.0
  EXPECT_EQ(blocks[1].type, 1u);
  EXPECT_EQ(u32(blocks[1].body, 0), 1u);  // Ethernet
  EXPECT_EQ(u32(blocks[1].body, 8), 1u << 16 | 9u);
  EXPECT_EQ(blocks[1].body[12], 9);  // nanoseconds
}

TEST_F(CaptureTest, BareIpLinksSaySo) {
  Capture::close(open(LinkInfo::Kind::ip));
  auto blocks = read_blocks(path_);
  ASSERT_EQ(blocks.size(), 2u);
  EXPECT_EQ(u32(blocks[1].body, 0), 101u);
}

TEST_F(CaptureTest, WritesBothDirectionsWithTheirTime) {
  Capture* capture = open();
  Instant at = now();
  RxFrame in{slice("frame that came in"), {}, at};
  capture->received(in);
  TxFrame* out = frames_.allocate();
  std::memcpy(out->prepend(5), "head ", 5);
  out->append(slice("and "));
  out->append(slice("payload"));
  capture->sent(*out, at + 1s);
  frames_.release(out);
  EXPECT_TRUE(capture->pending());
  EXPECT_EQ(read_blocks(path_).size(), 2u) << "packets are buffered";
  capture->flush();
  EXPECT_FALSE(capture->pending());

  auto blocks = read_blocks(path_);
  ASSERT_EQ(blocks.size(), 4u);
  CapturedPacket first = packet_of(blocks[2]), second = packet_of(blocks[3]);
  EXPECT_EQ(first.frame, "frame that came in");
  EXPECT_EQ(first.flags, 1u);
  EXPECT_EQ(second.frame, "head and payload");
  EXPECT_EQ(second.flags, 2u);
  EXPECT_EQ(second.nanoseconds - first.nanoseconds, 1'000'000'000u);
  EXPECT_NEAR(static_cast<double>(first.nanoseconds) / 1e9, static_cast<double>(time(nullptr)), 5.0);
  Capture::close(capture);
}

TEST_F(CaptureTest, CompletesPartialChecksums) {
  Capture* capture = open();
  // Bytes 4 to 5 hold the pseudo-header's sum, which is to be completed from byte 2 on.
  std::string bytes("\x01\x02\x03\x04\x12\x34\x05\x06\x07\x08\x09", 11);
  Offload partial;
  partial.partial_checksum = true;
  partial.checksum_start = 2;
  partial.checksum_offset = 2;
  capture->received(RxFrame{slice(bytes), partial, now()});
  // A checksum that lies outside of the frame is left as it is.
  partial.checksum_offset = 9;
  capture->received(RxFrame{slice(bytes), partial, now()});
  Capture::close(capture);

  auto blocks = read_blocks(path_);
  ASSERT_EQ(blocks.size(), 4u);
  std::string completed = packet_of(blocks[2]).frame;
  EXPECT_EQ(completed.substr(0, 4), bytes.substr(0, 4));
  EXPECT_EQ(completed.substr(6), bytes.substr(6));
  // 0x0304 + 0x1234 + 0x0506 + 0x0708 + 0x0900 = 0x2a46, complemented.
  EXPECT_EQ(load_be16(reinterpret_cast<const std::byte*>(completed.data()) + 4), 0xffff - 0x2a46);
  EXPECT_EQ(packet_of(blocks[3]).frame, bytes);
}

TEST_F(CaptureTest, FlushesByItselfWhenFull) {
  Capture* capture = open();
  std::string superframe(65000, 'x');
  RxFrame frame{slice(superframe), {}, now()};
  for (int i = 0; i < 20; ++i) capture->received(frame);
  EXPECT_GT(read_blocks(path_).size(), 10u);
  Capture::close(capture);
  auto blocks = read_blocks(path_);
  ASSERT_EQ(blocks.size(), 22u);
  EXPECT_EQ(packet_of(blocks[21]).frame, superframe);
}

TEST_F(CaptureTest, AChildDoesNotRepeatItsParentsPackets) {
  Capture* capture = open();
  capture->received(RxFrame{slice("parent"), {}, now()});
  pid_t child = fork();
  if (child == 0) {
    capture->received(RxFrame{slice("child"), {}, now()});
    capture->flush();
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  Capture::close(capture);
  auto blocks = read_blocks(path_);
  ASSERT_EQ(blocks.size(), 4u);
  EXPECT_EQ(packet_of(blocks[2]).frame, "child");
  EXPECT_EQ(packet_of(blocks[3]).frame, "parent");
}

TEST_F(CaptureTest, WhatCannotBeWrittenIsCounted) {
  LinkInfo info;
  Capture* capture = nullptr;
  ASSERT_FALSE(Capture::open("/dev/full", info, &capture));
  uint64_t before = capture->lost();
  capture->received(RxFrame{slice("x"), {}, now()});
  capture->flush();
  EXPECT_EQ(capture->lost(), before + 1);
  EXPECT_FALSE(capture->pending());
  Capture::close(capture);
}

TEST(CaptureErrors, SayWhichFile) {
  Capture* capture = nullptr;
  auto problem = Capture::open("/nonexistent/x.pcapng", LinkInfo{}, &capture);
  ASSERT_TRUE(problem);
  EXPECT_EQ(problem->code, ENOENT);
  EXPECT_NE(problem->message.find("/nonexistent/x.pcapng: No such file"), std::string::npos);
  EXPECT_EQ(capture, nullptr);
}

}  // namespace
}  // namespace ustack::io
