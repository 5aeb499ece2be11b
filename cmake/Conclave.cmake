# How this tree is built: one folder, one library; what a library links is the floor it stands on.
#
#   conclave_library(NAME DEPS ...)        all *.cc of the folder; without any, an interface library
#   conclave_program(NAME [EXAMPLE] SRCS ... DEPS ...)   into bin/ or bin/examples/
#   conclave_test(NAME SRCS ... DEPS ... [TIMEOUT s] [LABELS ...])   a gtest binary, one ctest entry

set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)

# Every include reads "conclave/<folder>/<file>.h", here as in an installed tree.
file(MAKE_DIRECTORY ${CMAKE_BINARY_DIR}/include ${CMAKE_BINARY_DIR}/gen)
file(CREATE_LINK ${CMAKE_SOURCE_DIR} ${CMAKE_BINARY_DIR}/include/conclave SYMBOLIC)

find_program(CCACHE_PROGRAM ccache)
if(CCACHE_PROGRAM AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CCACHE_PROGRAM})
endif()
find_program(MOLD_PROGRAM mold)
find_program(LLD_PROGRAM ld.lld)
if(MOLD_PROGRAM)
  add_link_options(-fuse-ld=mold)
elseif(LLD_PROGRAM)
  add_link_options(-fuse-ld=lld)
endif()

add_library(conclave_flags INTERFACE)
target_include_directories(conclave_flags INTERFACE
  $<BUILD_INTERFACE:${CMAKE_BINARY_DIR}/include> $<BUILD_INTERFACE:${CMAKE_BINARY_DIR}/gen>)
target_compile_options(conclave_flags INTERFACE -Wall -Wextra -Wno-missing-field-initializers -Werror=return-type
  -Werror=unused-result -fno-plt)
if(CONCLAVE_SANITIZE)
  add_compile_options(-fsanitize=${CONCLAVE_SANITIZE} -fno-sanitize-recover=undefined)
  add_link_options(-fsanitize=${CONCLAVE_SANITIZE})
endif()

# A folder joins the build as soon as it has a CMakeLists.txt.
function(conclave_add_folder folder)
  if(EXISTS ${CMAKE_CURRENT_SOURCE_DIR}/${folder}/CMakeLists.txt)
    add_subdirectory(${folder})
  endif()
endfunction()

# Only what has failpoints, or mutants, is compiled in another way, so that the rest comes out of ccache.
function(conclave_variants)
  foreach(variant FAILPOINT MUTANT)
    if(NOT CONCLAVE_${variant}S)
      continue()
    endif()
    string(TOLOWER ${variant} header)
    foreach(source ${ARGN})
      file(STRINGS ${source} includes REGEX "#include \"conclave/base/${header}.h\"")
      if(includes)
        set_property(SOURCE ${source} APPEND PROPERTY COMPILE_DEFINITIONS CONCLAVE_${variant}S)
      endif()
    endforeach()
  endforeach()
endfunction()

function(conclave_library name)
  cmake_parse_arguments(ARG "" "" "DEPS;SRCS" ${ARGN})
  if(NOT ARG_SRCS)
    file(GLOB ARG_SRCS CONFIGURE_DEPENDS *.cc)
  endif()
  set(target conclave_${name})
  if(ARG_SRCS)
    conclave_variants(${ARG_SRCS})
    add_library(${target} STATIC ${ARG_SRCS})
    target_link_libraries(${target} PUBLIC conclave_flags ${ARG_DEPS})
  else()
    add_library(${target} INTERFACE)
    target_link_libraries(${target} INTERFACE conclave_flags ${ARG_DEPS})
  endif()
  add_library(conclave::${name} ALIAS ${target})
endfunction()

function(conclave_program name)
  cmake_parse_arguments(ARG "EXAMPLE" "" "SRCS;DEPS" ${ARGN})
  conclave_variants(${ARG_SRCS})
  add_executable(${name} ${ARG_SRCS})
  target_link_libraries(${name} PRIVATE conclave_flags ${ARG_DEPS})
  if(ARG_EXAMPLE)
    set_target_properties(${name} PROPERTIES
      RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin/examples)
  endif()
endfunction()

function(conclave_test name)
  cmake_parse_arguments(ARG "" "TIMEOUT" "SRCS;DEPS;LABELS" ${ARGN})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 120)
  endif()
  if(CONCLAVE_SANITIZE)
    math(EXPR ARG_TIMEOUT "${ARG_TIMEOUT} * 10")
  endif()
  add_executable(${name} ${ARG_SRCS})
  target_link_libraries(${name} PRIVATE conclave_flags conclave_marks_report conclave::marks ${ARG_DEPS}
    GTest::gmock GTest::gtest_main)
  target_compile_options(${name} PRIVATE ${CONCLAVE_TEST_FLAGS})
  set_target_properties(${name} PROPERTIES
    RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin/tests)
  add_test(NAME ${name} COMMAND ${name} WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
  set_tests_properties(${name} PROPERTIES TIMEOUT ${ARG_TIMEOUT} LABELS "${ARG_LABELS}")
endfunction()
