#include "shim/user_copy.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <array>
#include <cstring>
#include <string>
#include <vector>

namespace ustack::shim {
namespace {

class CheckedPointers {
 public:
  CheckedPointers() { check_user_pointers(true); }
  ~CheckedPointers() { check_user_pointers(false); }
};

/// A readable and writable page with nothing mapped behind it.
class LastPage {
 public:
  LastPage()
      : at_(static_cast<char*>(
            mmap(nullptr, 2 * kSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))) {
    munmap(at_ + kSize, kSize);
  }
  ~LastPage() { munmap(at_, kSize); }
  char* begin() { return at_; }
  char* end() { return at_ + kSize; }
  static constexpr size_t kSize = 4096;

 private:
  char* at_;
};

MutableBytes bytes_of(std::string& text) { return std::as_writable_bytes(std::span(text)); }
Bytes bytes_of(const char* text) { return std::as_bytes(std::span(text, std::strlen(text))); }

TEST(UserCopy, BadPointersThatCostNothingToSee) {
  char byte = 0;
  EXPECT_EQ(copy_from_user(&byte, nullptr, 1).code(), EFAULT);
  EXPECT_EQ(copy_from_user(&byte, reinterpret_cast<void*>(4095), 1).code(), EFAULT);
  EXPECT_EQ(copy_from_user(&byte, reinterpret_cast<void*>(-1L), 1).code(), EFAULT);
  EXPECT_EQ(copy_from_user(&byte, reinterpret_cast<void*>(0xffff800000000000), 1).code(), EFAULT);
  EXPECT_EQ(copy_from_user(&byte, &byte, static_cast<size_t>(-1)).code(), EFAULT) << "runs over the end";
  EXPECT_EQ(copy_to_user(nullptr, &byte, 1).code(), EFAULT);
  EXPECT_TRUE(copy_to_user(nullptr, &byte, 0).ok()) << "nothing is nowhere";
}

TEST(UserCopy, RangeOnlyKnowsTheHalves) {
  char byte = 0;
  EXPECT_TRUE(user_range(nullptr, 100)) << "the null page is the program's half";
  EXPECT_FALSE(user_range(reinterpret_cast<void*>(0x8000000000000000), 0));
  EXPECT_FALSE(user_range(&byte, SIZE_MAX));
}

TEST(UserCopy, CheckedCopiesSayEfaultForWhatIsNotMapped) {
  CheckedPointers checked;
  LastPage page;
  char to[8] = {};
  std::memcpy(page.end() - 4, "last", 4);
  EXPECT_TRUE(copy_from_user(to, page.end() - 4, 4).ok());
  EXPECT_EQ(std::string(to, 4), "last");
  EXPECT_EQ(copy_from_user(to, page.end() - 4, 5).code(), EFAULT);
  EXPECT_EQ(copy_to_user(page.end(), to, 1).code(), EFAULT);
  EXPECT_TRUE(copy_to_user(page.begin(), "x", 1).ok());
  EXPECT_EQ(*page.begin(), 'x');
  EXPECT_EQ(get_user(reinterpret_cast<const int*>(page.end())).code(), EFAULT);
}

TEST(UserBytes, GathersFromSeveralParts) {
  std::array<iovec, 4> parts{{{const_cast<char*>("ab"), 2},
                              {nullptr, 0},
                              {const_cast<char*>("cdef"), 4},
                              {const_cast<char*>("g"), 1}}};
  Result<UserBytes> from = UserBytes::parts(parts.data(), parts.size());
  ASSERT_TRUE(from.ok());
  EXPECT_EQ(from->left(), 7U);
  std::string first(3, '.'), second(10, '.');
  EXPECT_EQ(from->read(bytes_of(first)), 3U);
  EXPECT_EQ(first, "abc");
  EXPECT_EQ(from->left(), 4U);
  EXPECT_EQ(from->read(bytes_of(second)), 4U);
  EXPECT_EQ(second, "defg......");
  EXPECT_EQ(from->read(bytes_of(second)), 0U);
}

TEST(UserBytes, ScattersAndSkips) {
  char a[2] = {'.', '.'}, b[3] = {'.', '.', '.'};
  std::array<iovec, 2> parts{{{a, 2}, {b, 3}}};
  Result<UserBytes> to = UserBytes::parts(parts.data(), parts.size());
  ASSERT_TRUE(to.ok());
  to->skip(1);
  EXPECT_EQ(to->write(bytes_of("xyz")), 3U);
  EXPECT_EQ(std::string(a, 2), ".x");
  EXPECT_EQ(std::string(b, 3), "yz.");
  EXPECT_EQ(to->left(), 1U);
  EXPECT_EQ(to->write(bytes_of("more")), 1U) << "no more than there is room for";
}

TEST(UserBytes, StopsAtABadPart) {
  char good[3] = {};
  std::array<iovec, 2> parts{{{good, 3}, {nullptr, 5}}};
  Result<UserBytes> to = UserBytes::parts(parts.data(), parts.size());
  ASSERT_TRUE(to.ok()) << "the null page is only found when it is touched";
  EXPECT_EQ(to->write(bytes_of("abcdefgh")), 3U);
  EXPECT_EQ(std::string(good, 3), "abc");
  EXPECT_EQ(to->left(), 5U);
}

TEST(UserBytes, ArraysAreJudgedAsLinuxDoes) {
  std::vector<iovec> many(UserBytes::kMaxParts + 1, iovec{nullptr, 0});
  EXPECT_TRUE(UserBytes::parts(many.data(), UserBytes::kMaxParts).ok());
  EXPECT_EQ(UserBytes::parts(many.data(), many.size()).code(), EINVAL);
  EXPECT_EQ(UserBytes::parts(many.data(), many.size(), EMSGSIZE).code(), EMSGSIZE);
  EXPECT_EQ(UserBytes::parts(many.data(), static_cast<unsigned>(-1)).code(), EINVAL) << "a negative count";
  EXPECT_TRUE(UserBytes::parts(nullptr, 0).ok());
  EXPECT_EQ(UserBytes::parts(nullptr, 1).code(), EFAULT);
  iovec negative{many.data(), static_cast<size_t>(-1)};
  EXPECT_EQ(UserBytes::parts(&negative, 1).code(), EINVAL);
  iovec kernels{reinterpret_cast<void*>(0xffff800000000000), 1};
  EXPECT_EQ(UserBytes::parts(&kernels, 1).code(), EFAULT);
}

TEST(UserBytes, OneCallMovesNoMoreThanLinuxDoes) {
  auto* low = reinterpret_cast<void*>(4096);
  EXPECT_EQ(UserBytes::buffer(low, size_t{1} << 40)->left(), UserBytes::kMaxBytes);
  std::array<iovec, 2> parts{{{low, UserBytes::kMaxBytes - 10}, {low, 100}}};
  EXPECT_EQ(UserBytes::parts(parts.data(), parts.size())->left(), UserBytes::kMaxBytes);
  EXPECT_EQ(UserBytes::buffer(reinterpret_cast<void*>(-1L), 1).code(), EFAULT);
}

}  // namespace
}  // namespace ustack::shim
