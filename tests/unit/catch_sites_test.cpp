// The places that are rewritten (shim/catch_sites.h), executed.
#include "shim/catch_sites.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>
#include <vector>

#if defined(__x86_64__)

namespace ustack::shim::catching {
namespace {

class CatchSites : public testing::Test {
 protected:
  static constexpr size_t kBytes = 4096;

  void SetUp() override {
    void* memory = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ASSERT_NE(memory, MAP_FAILED);
    text_ = static_cast<std::byte*>(memory);
    std::memset(text_, 0xcc, kBytes);
  }
  void TearDown() override {
    std::memset(is_hooked, 0, sizeof is_hooked);
    munmap(text_, kBytes);
  }

  /// Where the instructions went.
  std::byte* add(const std::vector<int>& code) {
    std::byte* const begin = text_ + used_;
    for (int byte : code) text_[used_++] = static_cast<std::byte>(byte);
    used_ = (used_ + 32) & ~size_t{15};
    return begin;
  }

  size_t rewrite(const Passing& passing = {0, uintptr_t{1} << 47}) {
    EXPECT_EQ(mprotect(text_, kBytes, PROT_READ | PROT_EXEC), 0);
    return rewrite_sites({text_, kBytes}, passing);
  }

  static long call(std::byte* function, long argument = 0) {
    return reinterpret_cast<long (*)(long)>(function)(argument);
  }

  std::byte* text_ = nullptr;
  size_t used_ = 0;
};

constexpr int kGetpid = SYS_getpid;

TEST_F(CatchSites, WhatIsKnownOfGoIsRewrittenAndDoesTheSame) {
  // As syscall.Syscall: the number is an argument.
  std::byte* any = add({0x48, 0x89, 0xf8, 0x0f, 0x05, 0x48, 0x3d, 0x01, 0xf0, 0xff, 0xff, 0xc3});
  // As runtime.futex: the result goes into the frame.
  std::byte* framed = add({0xb8, kGetpid, 0, 0, 0, 0x0f, 0x05, 0x89, 0x44, 0x24, 0xf8, 0xc3});
  std::byte* wide = add({0xb8, kGetpid, 0, 0, 0, 0x0f, 0x05, 0x48, 0x89, 0x44, 0x24, 0xf8, 0xc3});
  // As runtime.usleep: the frame is left.
  std::byte* leaving =
      add({0x48, 0x83, 0xec, 0x10, 0xb8, kGetpid, 0, 0, 0, 0x0f, 0x05, 0x48, 0x83, 0xc4, 0x10, 0xc3});
  EXPECT_EQ(rewrite(), 4u);
  EXPECT_EQ(any[3], std::byte{0xe9});
  EXPECT_EQ(framed[5], std::byte{0xe9});
  EXPECT_EQ(call(any, SYS_getpid), getpid());
  EXPECT_EQ(call(any, 100'000), -ENOSYS);
  EXPECT_EQ(call(framed), getpid());
  EXPECT_EQ(call(wide), getpid());
  EXPECT_EQ(call(leaving), getpid());
}

TEST_F(CatchSites, AHooksCallComesBackBehindTheInstruction) {
  std::byte* any = add({0x48, 0x89, 0xf8, 0x0f, 0x05, 0x48, 0x3d, 0x01, 0xf0, 0xff, 0xff, 0xc3});
  is_hooked[SYS_getpid] = 1;
  EXPECT_EQ(rewrite(), 1u);
  // This thread's calls are not caught: ustack_caught_call makes them as they are.
  EXPECT_EQ(call(any, SYS_getpid), getpid());
}

TEST_F(CatchSites, WhatMayBeNoInstructionStays) {
  // 0f 05 within a constant, and before an instruction that is not known.
  std::byte* constant = add({0xb8, 0x0f, 0x05, 0x89, 0x44, 0x24, 0x08, 0xc3});
  std::byte* unknown = add({0xb8, kGetpid, 0, 0, 0, 0x0f, 0x05, 0xc3});
  const std::vector<std::byte> before(text_, text_ + kBytes);
  EXPECT_EQ(rewrite(), 0u);
  EXPECT_EQ(std::memcmp(text_, before.data(), kBytes), 0);
  EXPECT_EQ(call(unknown), getpid());
  EXPECT_NE(constant, nullptr);
}

TEST_F(CatchSites, NothingIsDoneWhereNoStubMayBe) {
  add({0x48, 0x89, 0xf8, 0x0f, 0x05, 0x48, 0x3d, 0x01, 0xf0, 0xff, 0xff, 0xc3});
  EXPECT_EQ(rewrite({0, 4096}), 0u);
}

}  // namespace
}  // namespace ustack::shim::catching

#endif
